#include "vlm/models/smolvlm/smolvlm_video_prompt.h"

#include <c10/util/Exception.h>

#include <array>
#include <string_view>

#include "vlm/core/concat.h"

namespace vlm {
namespace {

constexpr std::array<std::string_view, 20> kSmall = {
    "zero",     "one",     "two",     "three",     "four",     "five",    "six",
    "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
constexpr std::array<std::string_view, 10> kTens = {
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"};

std::string two_digits(std::int64_t number) {
  return concat(number < 10 ? "0" : "", number);
}

std::string below_hundred(std::int64_t number) {
  if (number < 20) return std::string(kSmall[static_cast<std::size_t>(number)]);
  const std::string tens(kTens[static_cast<std::size_t>(number / 10)]);
  if (number % 10 == 0) return tens;
  return concat(tens, "-", kSmall[static_cast<std::size_t>(number % 10)]);
}

}  // namespace

std::string number_words(std::int64_t number) {
  TORCH_CHECK(number >= 0 && number < 1'000'000, "no words for ", number);
  if (number < 100) return below_hundred(number);
  const std::int64_t unit = number < 1000 ? 100 : 1000;
  const std::string words =
      concat(number_words(number / unit), unit == 100 ? " hundred" : " thousand");
  const std::int64_t remainder = number % unit;
  if (remainder == 0) return words;
  return concat(words, remainder < 100 ? " and " : ", ", number_words(remainder));
}

std::string time_span(std::int64_t seconds) {
  const std::int64_t days = seconds / 86400;
  const std::int64_t remainder = seconds % 86400;
  const std::string clock = concat(remainder / 3600, ":", two_digits(remainder / 60 % 60), ":",
                                   two_digits(remainder % 60));
  if (days == 0) return clock;
  return concat(days, days == 1 ? " day, " : " days, ", clock);
}

std::string video_prompt(const std::vector<double>& times_s, double duration_s,
                         const std::string& frame_prompt) {
  TORCH_CHECK(!times_s.empty(), "a clip without frames has no prompt");
  const double duration = duration_s < 0 ? times_s.back() : duration_s;
  std::string text =
      concat("You are provided the following series of ",
             number_words(static_cast<std::int64_t>(times_s.size())), " frames from a ",
             time_span(static_cast<std::int64_t>(duration)), " [H:MM:SS] video.\n");
  for (const double time : times_s) {
    const auto seconds = static_cast<std::int64_t>(time);
    text += concat("\nFrame from ", two_digits(seconds / 60), ":", two_digits(seconds % 60), ":",
                   frame_prompt);
  }
  return text + "\n\n";
}

}  // namespace vlm

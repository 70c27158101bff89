#include "vlm/text/jinja/jinja_clock.h"

#include <array>
#include <charconv>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr std::array<const char*, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                              "Thursday", "Friday", "Saturday"};
constexpr std::array<const char*, 12> kMonths = {"January",   "February", "March",    "April",
                                                 "May",       "June",     "July",     "August",
                                                 "September", "October",  "November", "December"};

std::string padded(int value, std::size_t width, char fill = '0') {
  std::string digits = concat(value);
  return digits.size() < width ? std::string(width - digits.size(), fill) + digits : digits;
}

std::optional<std::string> format_field(char field, bool is_bare, const std::tm& time) {
  const auto number = [&](int value, std::size_t width) {
    return padded(value, is_bare ? 0 : width);
  };
  const std::string day = kDays.at(static_cast<std::size_t>(time.tm_wday));
  const std::string month = kMonths.at(static_cast<std::size_t>(time.tm_mon));
  switch (field) {
    case 'a':
      return day.substr(0, 3);
    case 'A':
      return day;
    case 'b':
      return month.substr(0, 3);
    case 'B':
      return month;
    case 'd':
      return number(time.tm_mday, 2);
    case 'e':
      return padded(time.tm_mday, is_bare ? 0 : 2, ' ');
    case 'H':
      return number(time.tm_hour, 2);
    case 'I':
      return number((time.tm_hour + 11) % 12 + 1, 2);
    case 'j':
      return number(time.tm_yday + 1, 3);
    case 'm':
      return number(time.tm_mon + 1, 2);
    case 'M':
      return number(time.tm_min, 2);
    case 'p':
      return time.tm_hour < 12 ? "AM" : "PM";
    case 'S':
      return number(time.tm_sec, 2);
    case 'y':
      return number(time.tm_year % 100, 2);
    case 'Y':
      return number(time.tm_year + 1900, 4);
    case '%':
      return "%";
    default:
      return std::nullopt;
  }
}

std::optional<int> parse_number(std::string_view digits) {
  int value = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  return error == std::errc() && stop == end && value >= 0 ? std::optional(value) : std::nullopt;
}

}  // namespace

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm time{};
  ::localtime_r(&now, &time);
  return time;
}

std::tm parse_day(const std::string& day, const std::string& where) {
  const bool has_form = day.size() == 10 && day[4] == '-' && day[7] == '-';
  const auto part = [&](std::size_t at, std::size_t size) {
    return has_form ? parse_number(std::string_view(day).substr(at, size)) : std::nullopt;
  };
  const auto year = part(0, 4), month = part(5, 2), number = part(8, 2);
  if (year && month && number && *year >= 1900) {
    std::tm time{};
    time.tm_year = *year - 1900;
    time.tm_mon = *month - 1;
    time.tm_mday = *number;
    std::tm found = time;
    ::timegm(&found);  // fills in weekday and day of the year, and carries a 31st of June over
    if (found.tm_mon == time.tm_mon && found.tm_mday == time.tm_mday) return found;
  }
  throw Error(
      {.what = "not a day", .where = where, .got = concat("'", day, "'"), .wanted = "YYYY-MM-DD"});
}

std::string format_time(const std::string& format, const std::tm& time, const JinjaPlace& place) {
  std::string text;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      text += format[i];
      continue;
    }
    const bool is_bare = i + 1 < format.size() && format[i + 1] == '-';
    i += is_bare ? 2 : 1;
    const auto field = i < format.size() ? format_field(format[i], is_bare, time) : std::nullopt;
    if (!field) place.fail("strftime_now: format is not supported", concat("\"", format, "\""));
    text += *field;
  }
  return text;
}

}  // namespace vlm

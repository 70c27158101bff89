// Texts of numbers, which no locale changes.
#include "vlm/core/concat.h"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/grouping_locale.h"
#include "vlm/core/ascii.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/json.h"
#include "vlm/core/sha256.h"

namespace vlm {
namespace {

TEST_CASE("parts are joined as streams print them") {
  CHECK(concat("got ", 3, " of ", 4.5, ' ', true) == "got 3 of 4.5 1");
  CHECK(join(std::vector<int>{1, 2, 3}) == "1, 2, 3");
  CHECK(join(std::vector<std::string>{"a"}, " x ") == "a");
  CHECK(join(std::vector<int>{}) == "");
}

TEST_CASE("fixed and short numbers are printf's") {
  CHECK(fixed_text(3.14159, 2) == "3.14");
  CHECK(fixed_text(1234567.25, 1) == "1234567.2");
  CHECK(fixed_text(-0.04, 1) == "-0.0");
  CHECK(fixed_text(std::numeric_limits<double>::max(), 3).size() == 309 + 4);
  CHECK(short_text(3.14159, 4) == "3.142");
  CHECK(short_text(1e-9, 4) == "1e-09");
  CHECK(short_text(123456, 4) == "1.235e+05");
  CHECK(short_text(0.5, 4) == "0.5");
  CHECK(fixed_text(std::numeric_limits<double>::infinity(), 1) == "inf");
}

TEST_CASE("the locale of the program around changes no text") {
  const GroupingLocale locale;
  std::ostringstream theirs;
  theirs << 1234567 << " " << 0.5;
  REQUIRE(theirs.str() == "1.234.567 0,5");  // the locale is what it says
  CHECK(concat("checkpoint-", 1234567, " ", 0.5, " ", 1e6, " ", true) ==
        "checkpoint-1234567 0.5 1e+06 1");
  CHECK(join(std::vector<std::int64_t>{1000, 20000}) == "1000, 20000");
  CHECK(fixed_text(1234567.25, 1) == "1234567.2");
  CHECK(short_text(1234.5, 6) == "1234.5");
}

TEST_CASE("JSON, fields and digests are the same in any locale") {
  const std::string text = R"({"large":1234567,"part":0.25,"yes":true})";
  const std::string digest = sha256_hex(text);
  std::int64_t large = 0;
  double part = 0;
  const Fields fields = {{"large", &large}, {"part", &part}};
  const GroupingLocale locale;
  const Json json = parse_json(text, "here");
  CHECK(json.dump() == text);
  read_fields(json, fields, UnknownKeys::kIgnore, "here");
  CHECK(large == 1234567);
  CHECK(part == 0.25);
  CHECK(write_fields(fields).dump() == R"({"large":1234567,"part":0.25})");
  CHECK(describe(Json(1234567.5)) == "number 1234567.5");
  CHECK(sha256_hex(text) == digest);
}

TEST_CASE("letters are ASCII's") {
  CHECK(ascii_lower("A\xc3\x84Z.JPG") == "a\xc3\x84z.jpg");
  CHECK(is_hex_digit('f'));
  CHECK(is_hex_digit('F'));
  CHECK(is_hex_digit('9'));
  CHECK_FALSE(is_hex_digit('g'));
  CHECK(is_letter('z'));
  CHECK_FALSE(is_letter('\xe4'));
  CHECK_FALSE(is_letter('1'));
}

}  // namespace
}  // namespace vlm

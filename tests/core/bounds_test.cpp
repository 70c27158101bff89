// Checks of values on the command line.
#include "vlm/core/config/bounds.h"

#include "tests/support/catch.h"

namespace vlm {
namespace {

TEST_CASE("a value out of bounds is told with the bound, in plain digits") {
  CHECK(at_least(0)("0").empty());
  CHECK(at_least(0)("-3") == "got -3, wanted 0 or more");
  CHECK(above(0)("1e-9").empty());
  CHECK(above(0)("0") == "got 0, wanted a number above 0");
  CHECK(between(0, 1 << 20)("1048576").empty());
  CHECK(between(0, 1 << 20)("1048577") == "got 1048577, wanted 0 to 1048576");
  CHECK(between(0, 1)("0.5").empty());
}

TEST_CASE("what is no finite number is refused") {
  for (const char* text : {"nan", "inf", "-inf", "1e999", "x", "3x", " 3"}) {
    CHECK(at_least(0)(text) == std::string("got ") + text + ", wanted 0 or more");
  }
  CHECK(at_least(0)("") == "got nothing, wanted 0 or more");
  CHECK(not_empty()("x").empty());
  CHECK(not_empty()("") == "the value is empty");
}

}  // namespace
}  // namespace vlm

#include "vlm/core/regex.h"

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

Regex python(const std::string& expression) {
  return Regex::from_python(expression, "here");
}

TEST_CASE("whole texts and beginnings match as Python's fullmatch and match") {
  CHECK(python("a|ab").matches_whole("ab"));
  CHECK_FALSE(python("a|ab").matches_whole("abc"));
  CHECK(python("a|ab").matches_begin("abc"));
  CHECK_FALSE(python("b").matches_begin("ab"));
  CHECK_FALSE(python("a").matches_whole("a\n"));
  CHECK(python("(?i)A.c").matches_whole("aBC"));
  CHECK(python("x(?<!yx)(?P<n>\\d)(?P=n)").matches_whole("x33"));
  CHECK(python("[]a[]+(?:b{2}|\\.){1,2}").matches_whole("]a[bb."));
  CHECK(python("é+").matches_whole("éé"));
}

TEST_CASE("groups and places of a match") {
  const Regex regex = python(".*?\\.(?P<idx>\\d+)\\.");
  CHECK(regex.group("model.layers.12.q.3.x", "idx") == "12");
  CHECK_FALSE(regex.group("model.layers", "idx"));
  CHECK_FALSE(regex.group("a.1.", "other"));
  CHECK(python("b+").find("abba") == std::pair<std::size_t, std::size_t>(1, 3));
  CHECK_FALSE(python("b+").find("abba", 3));
}

TEST_CASE("what Python lacks or reads differently is refused") {
  for (const char* expression :
       {"(*FAIL)", "(*UTF8)a", "\\Qa", "a\\K", "\\h", "\\R", "\\v", "\\N", "\\p{L}", "(?R)", "(?1)",
        "(?&n)", "(?|a)", "(?<n>a)", "(?'n'a)", "[[:alpha:]]", "a{,2}", "(?P>n)"}) {
    INFO(expression);
    CHECK_THROWS_WITH(python(expression),
                      Contains("here: regular expression uses a construct that Python doesn't "
                               "have, or reads differently: got \""));
  }
  CHECK_THROWS_WITH(python("(a"), Contains("here: not a regular expression: missing closing"));
  CHECK_THROWS_WITH(python("a\\"), Contains("here: not a regular expression: "));
  CHECK_THROWS_WITH(python("(a)(?P=b)"), Contains("here: not a regular expression: "));
  CHECK_THROWS_WITH(python(std::string(70'000, 'a')),
                    Contains("regular expression is too long: got 70000 bytes"));
}

TEST_CASE("an expression that explodes gives up") {
  const std::string text = std::string(300, 'a') + "c";
  CHECK_THROWS_WITH(python("(?:a+)+[bx]").matches_whole(text),
                    Contains("here: regular expression needs too many steps for this text"));
  CHECK_THROWS_WITH(python("(?:a+)+[bx]").matches_begin(text), Contains("too many steps"));
}

}  // namespace
}  // namespace vlm

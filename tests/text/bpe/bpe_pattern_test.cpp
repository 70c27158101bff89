#include "vlm/text/bpe/bpe_pattern.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/text/unicode/unicode.h"

using namespace vlm;

namespace {

std::vector<std::string> matches_of(const std::string& regex, const std::string& text) {
  std::vector<Span> spans;
  Pattern::from_regex(regex, "here").find_all(text, spans);
  std::vector<std::string> result;
  for (const Span& span : spans) result.push_back(text.substr(span.begin, span.end - span.begin));
  return result;
}

std::string error_of(const std::string& regex) {
  try {
    Pattern::from_regex(regex, "here");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("matches go left to right and never overlap") {
  CHECK(matches_of("a+", "aabaac") == Texts{"aa", "aa"});
  CHECK(matches_of("x*", "axxb") == Texts{"", "xx", ""});
  CHECK(matches_of("(?i:'S)|\\p{Lu}", "'s'SÀ'\u017f") == Texts{"'s", "'S", "À", "'\u017f"});
  CHECK(matches_of("\\u00e9|\\x41|\\x{1F642}", "éA🙂a") == Texts{"é", "A", "🙂"});
  CHECK(matches_of("[^\\s\\p{L}]+", "a!? b") == Texts{"!?"});
  CHECK(matches_of("\\s+(?!\\S)|\\s", "   x") == Texts{"  ", " "});
  CHECK(matches_of(".+", "a\r\nb") == Texts{"a\r", "b"});
}

TEST_CASE("newer code points match as the package matches them") {
  CHECK(matches_of("\\p{L}+", "a\U00031350b") == Texts{"a\U00031350b"});  // a letter of Unicode 15
  CHECK(matches_of("\\p{Nd}", "\U0001E5F1") == Texts{"\U0001E5F1"});      // a digit of Unicode 16
  CHECK(matches_of("\\s", "\u180e\u2003") == Texts{"\u2003"});  // a space until Unicode 6.3
}

TEST_CASE("literal patterns are not regular expressions") {
  std::vector<Span> spans;
  Pattern::from_text("a.").find_all("abaa.a.", spans);
  CHECK(spans == std::vector<Span>{{3, 5}, {5, 7}});
  CHECK(Pattern::from_text(" ").replace_all(" a b ", "▁") == "▁a▁b▁");
}

TEST_CASE("long runs don't exhaust anything") {
  const std::string spaces(1'000'000, ' ');
  CHECK(matches_of("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", spaces + "x").size() == 2);
  CHECK(matches_of("(?:a|b)+", std::string(1'000'000, 'a')).size() == 1);
}

TEST_CASE("constructs that the package would read differently are refused") {
  const std::string what = "here: regular expression uses a construct that is not supported: got ";
  CHECK(error_of("a\\w") == what + R"("\w" at byte 1 of "a\w")");
  CHECK(error_of("^a") == what + R"("^" at byte 0 of "^a")");
  for (const char* regex :
       {"\\b",      "\\h",         "\\v",   "a$",    "(?i)a",  "(?<n>a)", "(*FAIL)",
        "a{2}+",    "a{2}?",       "a{,2}", "{",     "[a[b]]", "[a&&b]",  "[]a]",
        "\\p{Han}", "\\pL",        "\\p{L", "\\u12", "\\xe9",  "\\x{}",   "\\1",
        "a\\",      "[[:alpha:]]", "\\G",   "(?m:a)"}) {
    INFO(regex);
    CHECK_THAT(error_of(regex), Contains(what));
  }
}

TEST_CASE("what is no regular expression is refused") {
  CHECK_THAT(error_of("(a"), Contains("here: not a regular expression: missing closing"));
  CHECK_THAT(error_of("(a"), Contains("got \"(a\""));
  CHECK_THAT(
      error_of(std::string(70'000, 'a')),
      Contains("here: regular expression is too long: got 70000 bytes, wanted at most 65536"));
}

TEST_CASE("a regular expression that explodes gives up with an error") {
  std::string message;
  try {
    matches_of("(?:a+)+[bx]", std::string(200, 'a') + "c");
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK_THAT(message, Contains("here: regular expression needs too many steps for this text"));
}

TEST_CASE("patterns of components") {
  const auto error = [](const char* json) {
    try {
      parse_pattern(parse_json(json, "x"), "p");
    } catch (const Error& caught) {
      return std::string(caught.what());
    }
    return std::string();
  };
  CHECK(error(R"({"Regex": "a"})").empty());
  CHECK(error(R"({"Glob": "a"})") == "p: \"String\" is missing");
  CHECK(error(R"({"String": ""})") == "p: pattern is empty");
  CHECK(error(R"({"Regex": 1})") == "p.Regex: wrong type: got number 1, wanted string");
  CHECK(error(R"(["a"])") == "p: wrong type: got array, wanted object");
}

TEST_CASE("word characters are those of the regex crate") {
  for (const char32_t c : {U'a', U'_', U'5', char32_t{0xE9}, char32_t{0x301}, char32_t{0x24B6},
                           char32_t{0x200D}, char32_t{0x31350}}) {
    CHECK(is_word_character(c));
  }
  for (const char32_t c : {U' ', U'-', U'.', char32_t{0xBD}, char32_t{0x1F642}}) {
    CHECK_FALSE(is_word_character(c));
  }
}

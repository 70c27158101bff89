// Patterns: which texts match, and which patterns are refused.
#include "tests/infer/structured/rules.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

std::string refused_pattern(const std::string& pattern) {
  Rules rules;
  return thrown_by([&] { rules.compile({.kind = AnswerRule::Kind::kRegex, .text = pattern}); });
}

TEST_CASE("a pattern's texts are those that match as a whole") {
  Rules rules;
  const auto matches = [&](const std::string& pattern, const std::string& text) {
    return rules.regex(pattern, text) == "whole";
  };
  CHECK(matches("a|bc", "bc"));
  CHECK_FALSE(matches("a|bc", "ab"));
  CHECK(matches("^(foo|ba[rz])+$", "foobarbaz"));
  CHECK(matches("(?:a){2,3}", "aaa"));
  CHECK_FALSE(matches("(?<x>a){2,3}", "a"));
  CHECK(matches("a{2}", "aa"));
  CHECK(matches("a{2,}b??", "aaaaab"));
  CHECK(matches(R"(\d+\.\d*)", "12."));
  CHECK(matches(R"([^\d\s]+)", "äx-"));
  CHECK_FALSE(matches(R"([^\d\s]+)", "a b"));
  CHECK(matches(R"(\w\W\S\D)", "a-bc"));
  CHECK(matches(R"([\x41-\u0043\]-]{4})", "AC]-"));
  CHECK(matches(".", "\xf0\x9f\x98\x80"));  // one character of four bytes
  CHECK_FALSE(matches(".", "\n"));
  CHECK(matches(R"(\n\t\/\$\{)", "\n\t/${"));
  CHECK(matches("", ""));
  CHECK(matches("a|", ""));
  CHECK(rules.regex(" a", " a") == "whole");
  CHECK(rules.regex("abc", "ab") == "part");
}

TEST_CASE("a pattern that can't be kept is refused, naming what it has") {
  CHECK(refused_pattern("(?=a)b") ==
        "here: pattern '(?=a)b': unsupported group: got (?=a, wanted (…), (?:…) or (?<name>…)");
  CHECK_THAT(refused_pattern("(?<!a)b"), Contains("unsupported group"));
  CHECK_THAT(refused_pattern("(?i)b"), Contains("unsupported group"));
  CHECK_THAT(refused_pattern(R"((a)\1)"), Contains("unsupported escape: got \\1"));
  CHECK_THAT(refused_pattern(R"(\bword)"), Contains("unsupported escape: got \\b"));
  CHECK_THAT(refused_pattern(R"(\p{L})"), Contains("unsupported escape: got \\p"));
  CHECK_THAT(refused_pattern("a^b"), Contains("an anchor inside the pattern: got ^"));
  CHECK_THAT(refused_pattern("(a$)b"), Contains("an anchor inside the pattern: got $"));
  CHECK_THAT(refused_pattern("(a"), Contains("a bracket isn't closed"));
  CHECK_THAT(refused_pattern("a)"), Contains("unmatched bracket"));
  CHECK_THAT(refused_pattern("[a"), Contains("the pattern ends too early"));
  CHECK_THAT(refused_pattern("[b-a]"), Contains("unusable range in a class"));
  CHECK_THAT(refused_pattern("[]"), Contains("a class that no text can match"));
  CHECK_THAT(refused_pattern("*a"), Contains("a quantifier without anything before it"));
  CHECK_THAT(refused_pattern("a**"), Contains("a quantifier behind a quantifier"));
  CHECK_THAT(refused_pattern("a{3,2}"), Contains("unusable quantifier: got {3,2}"));
  CHECK_THAT(refused_pattern("a{x}"), Contains("a brace that is no quantifier"));
  CHECK_THAT(refused_pattern("(a*)*"), Contains("an unbounded repetition of what may be empty"));
  CHECK_THAT(refused_pattern("(a{1,100}){1,100}"), Contains("the pattern's counts are too large"));
  CHECK_THAT(refused_pattern("\\"), Contains("the pattern ends too early"));
  CHECK_THAT(refused_pattern("\\ud800"), Contains("half a surrogate pair"));
  CHECK_THAT(refused_pattern("\xff"), Contains("the pattern isn't UTF-8"));
  CHECK_THAT(refused_pattern(std::string(513, 'a')),
             Contains("the pattern is too long: got 513 bytes, wanted at most 512"));
  CHECK_THAT(refused_pattern(std::string(40, '(') + std::string(40, ')')),
             Contains("the pattern is nested too deeply"));
}

TEST_CASE("a grammar is taken as it is, within bounds") {
  Rules rules;
  const auto compile = [&](const std::string& text) {
    return rules.compile({.kind = AnswerRule::Kind::kGrammar, .text = text});
  };
  CHECK(fate_of(*compile("root ::= \"a\" rest # (\nrest ::= [(\\]]{1,2}"), "a(]") == "whole");
  const auto refusal = [&](const std::string& text) { return thrown_by([&] { compile(text); }); };
  CHECK_THAT(refusal("start ::= \"a\""), Contains("here: the rule can't be compiled"));
  CHECK_THAT(refusal("root ::= other"), Contains("the rule can't be compiled"));
  CHECK(refusal("root ::= other").find('/') == std::string::npos);  // no path of a source
  CHECK_THAT(refusal("root ::= " + std::string(40, '(')), Contains("nested too deeply"));
  CHECK_THAT(refusal("root ::= a{1,1000}\na ::= [a-z]{1,1000}"),
             Contains("the grammar's counts are too large"));
  CHECK_THAT(refusal(std::string(40'000, ' ')), Contains("the grammar is too large"));
  std::string many = "root ::= \"a\"\n";
  for (int i = 0; i < 501; ++i) many += concat("a", i, " ::= \"b\"\n");
  CHECK_THAT(refusal(many), Contains("the grammar has too many rules: got 502"));
}

TEST_CASE("any JSON object is one value in braces") {
  Rules rules;
  const auto grammar = rules.compile({.kind = AnswerRule::Kind::kJsonObject});
  CHECK(fate_of(*grammar, R"({"a": [1, {"b": null}], "c": "\n"})") == "whole");
  CHECK(fate_of(*grammar, "[]") == "refused at 0");
  CHECK(fate_of(*grammar, "{}}") == "refused at 2");
}

TEST_CASE("rules are compiled once, and those that were not asked for long are forgotten") {
  Rules rules;
  const AnswerRule rule{.kind = AnswerRule::Kind::kRegex, .text = "a"};
  CHECK(rules.compile(rule) == rules.compile(rule));
  CHECK(rules.compiler().cached_bytes() > 0);
  RuleCompiler small(std::make_shared<ByteTokenizer>(), /*most_cached=*/1);
  const auto first = small.compile(rule, "here");
  small.compile({.kind = AnswerRule::Kind::kRegex, .text = "b"}, "here");
  CHECK(small.compile(rule, "here") != first);
  CHECK(fate_of(*first, "a") == "whole");  // who has it keeps it
}

}  // namespace
}  // namespace vlm::infer

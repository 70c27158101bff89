#include "infer/structured/rule_grammar.h"

#include <algorithm>
#include <cstdint>

#include "infer/structured/grammar/pattern_grammar.h"
#include "infer/structured/grammar/schema_grammar.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostGrammarBytes = 32 << 10;
constexpr std::size_t kMostGrammarRules = 500;
constexpr std::int64_t kMostGrammarCounts = 10'000;
constexpr int kMostBrackets = 32;

[[noreturn]] void refuse_grammar(const std::string& what, const std::string& where,
                                 const std::string& got, const std::string& wanted) {
  throw Error({.what = what, .where = where, .got = got, .wanted = wanted});
}

// The place behind a literal, a class or a comment that begins at `at`; `at` where none does.
std::size_t skip_quoted(const std::string& text, std::size_t at) {
  const char close = text[at] == '"' ? '"' : text[at] == '[' ? ']' : text[at] == '#' ? '\n' : '\0';
  if (close == '\0') return at;
  for (std::size_t i = at + 1; i < text.size(); ++i) {
    if (close != '\n' && text[i] == '\\') {
      ++i;
    } else if (text[i] == close) {
      return i + 1;
    }
  }
  return text.size();
}

// The larger number in the braces that begin at `at`.
std::int64_t count_at(const std::string& text, std::size_t at) {
  std::int64_t largest = 1, number = 0;
  for (std::size_t i = at + 1; i < text.size() && text[i] != '}'; ++i) {
    const bool is_digit = text[i] >= '0' && text[i] <= '9';
    number = is_digit
                 ? std::min<std::int64_t>(number * 10 + (text[i] - '0'), kMostGrammarCounts + 1)
                 : 0;
    largest = std::max(largest, number);
  }
  return largest;
}

// Rules may repeat each other, so all counts together are bounded.
void check_grammar(const std::string& text, const std::string& where) {
  if (text.size() > kMostGrammarBytes) {
    refuse_grammar("the grammar is too large", where, concat(text.size(), " bytes"),
                   concat("at most ", kMostGrammarBytes));
  }
  if (!is_valid_utf8(text)) refuse_grammar("the grammar isn't UTF-8", where, "", "UTF-8");
  int brackets = 0;
  std::size_t rules = 0;
  std::int64_t counts = 1;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t next = skip_quoted(text, at);
    if (next > at) {
      at = next;
      continue;
    }
    if (text[at] == '(') ++brackets;
    if (text[at] == ')') --brackets;
    if (text.compare(at, 3, "::=") == 0) ++rules;
    if (text[at] == '{') counts = std::min(counts * count_at(text, at), kMostGrammarCounts + 1);
    if (brackets > kMostBrackets) {
      refuse_grammar("the grammar is nested too deeply", where, "",
                     concat(kMostBrackets, " brackets"));
    }
    ++at;
  }
  if (rules > kMostGrammarRules) {
    refuse_grammar("the grammar has too many rules", where, concat(rules),
                   concat("at most ", kMostGrammarRules));
  }
  if (counts > kMostGrammarCounts) {
    refuse_grammar("the grammar's counts are too large", where, "a product of more",
                   concat("at most ", kMostGrammarCounts, " for all of them multiplied"));
  }
}

}  // namespace

std::string to_grammar(const AnswerRule& rule, const std::string& where) {
  switch (rule.kind) {
    case AnswerRule::Kind::kJsonSchema:
      return schema_to_grammar(rule.text, where);
    case AnswerRule::Kind::kJsonObject:
      return json_object_grammar();
    case AnswerRule::Kind::kRegex:
      return "root ::= " + pattern_to_grammar(rule.text, {}, where) + "\n";
    default:
      check_grammar(rule.text, where);
      return rule.text;
  }
}

}  // namespace vlm::infer

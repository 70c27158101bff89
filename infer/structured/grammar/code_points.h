// Sets of characters, as a pattern's classes name them, and how a grammar spells one of them.
//
// Without surrogates, which no text in UTF-8 has. In a JSON string a character has one spelling
// only: itself where it may stand there, else its short escape (\n). Those that would need \u00XX
// can't stand in an answer: then no two answers differ by spelling alone, and none has half a
// surrogate pair.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vlm::infer {

class CodePoints {
 public:
  CodePoints() = default;
  CodePoints(std::initializer_list<std::pair<char32_t, char32_t>> ranges);
  static CodePoints all();

  void add(char32_t first, char32_t last);
  void add(const CodePoints& other);
  CodePoints complement() const;
  bool is_empty() const { return ranges_.empty(); }

  // An expression of EBNF for one of them in a plain text or in a JSON string; "" for none.
  std::string to_grammar(bool in_json) const;

 private:
  CodePoints without(const CodePoints& other) const;
  bool has(char32_t code_point) const;

  std::vector<std::pair<char32_t, char32_t>> ranges_;  // ascending, apart
};

// A string literal of EBNF.
std::string to_literal(std::string_view text);

}  // namespace vlm::infer

// Regular expressions of tokenizer.json, matched as the `tokenizers` package matches them.
//
//   text (valid UTF-8) ─► find_all ─► [begin, end) of every match, left to right
//
// The package runs Oniguruma (Ruby syntax, Unicode 16); here PCRE2 runs (vlm/core/regex.h).
// Constructs that the two read differently (\w, \b, \h, ^, $, bare (?i), a{2}+, [a&&b] and others)
// are refused with an Error, so a pattern that loads means the same in both. Newer code points are
// shown to PCRE2 as older ones of the same category.
//
// A Pattern is immutable after construction and safe to use from several threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

class Regex;

// Bytes [begin, end) of a text.
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Span&) const = default;
};

class Pattern {
 public:
  // A regular expression; throws Error naming `where` and the construct that is not supported.
  static Pattern from_regex(const std::string& regex, const std::string& where);
  // A literal text.
  static Pattern from_text(std::string text);

  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

  // Replaces `matches` by every match, none overlapping. Throws Error when the expression needs too
  // many steps.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

  // `text` with every match replaced by `content`.
  std::string replace_all(const std::string& text, const std::string& content) const;

 private:
  Pattern();

  std::unique_ptr<Regex> regex_;  // null: literal
  std::string literal_;
};

// The "pattern" of a component: {"Regex": …} or {"String": …}. Throws Error.
Pattern parse_pattern(const Json& json, const std::string& where);

// \w of the `regex` crate: Alphabetic, marks, decimal digits, connectors and joiners.
bool is_word_character(char32_t code_point);

}  // namespace vlm

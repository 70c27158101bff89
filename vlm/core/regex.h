// Regular expressions with a bound on the steps that a match may take.
//
//   expression ─► Regex::compile, or Regex::from_python ─► find, matches_whole, matches_begin,
//   group
//
// PCRE2 runs them, just-in-time compiled where it can; regex.cpp is the only file that sees it.
// from_python reads what Python's `re` reads, for patterns that other programs wrote: what only
// PCRE2 knows, or reads differently, is refused. A Regex is immutable after construction and safe
// to use from several threads. Reference: PCRE2 10.42, `re` of Python 3.12.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace vlm {

class Regex {
 public:
  // In PCRE2's syntax; `shown` is what messages call it. Throws Error naming `where`.
  static Regex compile(const std::string& expression, const std::string& where,
                       const std::string& shown);
  // In Python's syntax.
  static Regex from_python(const std::string& expression, const std::string& where);

  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Bytes [begin, end) of the first match at or after `from`; nothing where there is none. `text`
  // is valid UTF-8. These four throw Error when the expression needs too many steps.
  std::optional<std::pair<std::size_t, std::size_t>> find(std::string_view text,
                                                          std::size_t from = 0) const;
  // re.fullmatch and re.match
  bool matches_whole(std::string_view text) const;
  bool matches_begin(std::string_view text) const;
  // The text that the named group matched, in a match at the beginning of `text`; nothing when
  // there is no match or no such group.
  std::optional<std::string> group(std::string_view text, const std::string& name) const;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);

  std::unique_ptr<Code> code_;
};

}  // namespace vlm

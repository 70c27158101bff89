// UTF-8 and the few Unicode facts that tokenizers need.
//
// Code points are char32_t. Functions that take "valid UTF-8" don't check it: text goes through
// to_valid_utf8 once, where it enters. Broken bytes become U+FFFD by maximal subparts, which is
// what Python's errors="replace" and Rust's from_utf8_lossy do.
//
// Character classes are those of Unicode 16, the version that the `tokenizers` package (0.23) has
// in its pattern engine; PCRE2 and utf8proc of Debian 12 and Ubuntu 24.04 are older, so newer code
// points come from a table (unicode_table.cpp, written by scripts/make_unicode_table.py).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace vlm {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// The sequence that starts a text: how many bytes it takes, and whether they are a character.
struct Utf8Sequence {
  std::size_t size = 0;  // at least 1
  bool valid = false;
  bool cut = false;  // not valid, but more bytes could make it so
};
Utf8Sequence first_sequence(std::string_view text);

bool is_valid_utf8(std::string_view text);
std::string to_valid_utf8(std::string_view text);

void append_utf8(char32_t code_point, std::string& text);
std::string to_utf8(char32_t code_point);

// Bytes of the character that starts with `lead`; the text is valid UTF-8.
std::size_t utf8_size(unsigned char lead);

// The character at `at` of valid UTF-8; `at` moves behind it.
char32_t next_code_point(std::string_view text, std::size_t& at);

// Turns bytes that come in pieces into valid UTF-8, holding back a character until it is whole.
// The pieces together equal to_valid_utf8 of all bytes.
class Utf8Stream {
 public:
  std::string add(std::string_view bytes);
  std::string finish();

 private:
  std::string pending_;  // at most 3 bytes: the start of a character
};

// White_Space property.
bool is_whitespace(char32_t code_point);

// General categories Nd, Nl and No (Unicode 17 here: Rust's char::is_numeric).
bool is_numeric(char32_t code_point);

// Simple case mappings (one code point to one), Unicode 15; lower case Unicode 17.
char32_t to_upper(char32_t code_point);
char32_t to_lower(char32_t code_point);
char32_t to_title(char32_t code_point);

// A run of code points that Unicode 14 doesn't know, with the category that Unicode 16 gives them.
struct NewerRange {
  char32_t first;
  char32_t last;
  char category[3];  // "Lo"
};
std::span<const NewerRange> newer_ranges();

struct CodePointRange {
  char32_t first;
  char32_t last;
};

// Marks that NFC of the `tokenizers` package (Unicode 9) doesn't know: it neither moves nor
// composes them.
std::span<const CodePointRange> inert_marks();
bool is_inert_mark(char32_t code_point);

// Code points that Unicode 14 has no lower case for, and how far it is from them.
struct LowerRange {
  char32_t first;
  char32_t last;
  std::int32_t shift;
};
std::span<const LowerRange> newer_lower();

// A code point with the same general category in Unicode 16, the same length in UTF-8, and known
// since before Unicode 14; nothing where the code point needs no replacement. Lets an older pattern
// engine split newer text as a newer one does.
std::optional<char32_t> older_equivalent(char32_t code_point);

}  // namespace vlm

#include "vlm/text/unicode/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace vlm {
namespace {

struct ByteRange {
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
};

// Continuation bytes that `lead` asks for; 0 where it can't start a character.
std::size_t continuation_count(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return 1;
  if (lead >= 0xE0 && lead <= 0xEF) return 2;
  if (lead >= 0xF0 && lead <= 0xF4) return 3;
  return 0;
}

// What the second byte may be: keeps out overlong forms, surrogates and code points over 10FFFF.
ByteRange second_byte(unsigned char lead) {
  if (lead == 0xE0) return {.low = 0xA0};
  if (lead == 0xED) return {.high = 0x9F};
  if (lead == 0xF0) return {.low = 0x90};
  if (lead == 0xF4) return {.high = 0x8F};
  return {};
}

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// The range of a sorted table that holds `code_point`, or null.
template <typename Range>
const Range* find_range(std::span<const Range> ranges, char32_t code_point) {
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), code_point,
                       [](char32_t value, const Range& range) { return value < range.first; });
  if (after == ranges.begin()) return nullptr;
  const Range& range = *(after - 1);
  return code_point <= range.last ? &range : nullptr;
}

const NewerRange* find_newer(char32_t code_point) {
  return find_range(newer_ranges(), code_point);
}

// Old code points of each category: one of three bytes, one of four.
struct Equivalent {
  char category[3];
  char32_t three_bytes;
  char32_t four_bytes;
};
constexpr Equivalent kEquivalents[] = {
    {"Lu", 0xA640, 0x10400}, {"Ll", 0xA641, 0x10428}, {"Lm", 0xA60C, 0x16B40},
    {"Lo", 0xA000, 0x20000}, {"Mn", 0x0941, 0x10A01}, {"Mc", 0x0903, 0x11000},
    {"Nd", 0x0966, 0x104A0}, {"No", 0x2150, 0x10107}, {"Pd", 0x2010, 0x10EAD},
    {"Po", 0x2016, 0x10100}, {"So", 0x2100, 0x1F300}, {"Sm", 0x2200, 0x1D6C1},
    {"Cf", 0x200B, 0x110BD},
};

char32_t map_case(char32_t code_point, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  return static_cast<char32_t>(map(static_cast<utf8proc_int32_t>(code_point)));
}

}  // namespace

Utf8Sequence first_sequence(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {.size = 1, .valid = true};
  const std::size_t count = continuation_count(lead);
  if (count == 0) return {.size = 1};
  ByteRange allowed = second_byte(lead);
  for (std::size_t i = 1; i <= count; ++i) {
    if (i == text.size()) return {.size = i, .cut = true};
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < allowed.low || byte > allowed.high) return {.size = i};
    allowed = {};
  }
  return {.size = count + 1, .valid = true};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    std::uint64_t word;
    if (text.size() >= sizeof word) {  // eight ASCII bytes at once
      std::memcpy(&word, text.data(), sizeof word);
      if ((word & 0x8080808080808080ULL) == 0) {
        text.remove_prefix(sizeof word);
        continue;
      }
    }
    const Utf8Sequence sequence = first_sequence(text);
    if (!sequence.valid) return false;
    text.remove_prefix(sequence.size);
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Utf8Sequence sequence = first_sequence(text);
    result += sequence.valid ? text.substr(0, sequence.size) : kReplacement;
    text.remove_prefix(sequence.size);
  }
  return result;
}

void append_utf8(char32_t c, std::string& text) {
  const auto add = [&text](char32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | c >> 6);
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3F));
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

std::string to_utf8(char32_t code_point) {
  std::string text;
  append_utf8(code_point, text);
  return text;
}

std::size_t utf8_size(unsigned char lead) {
  if (lead < 0x80) return 1;
  return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t size = utf8_size(lead);
  char32_t code_point = size == 1 ? lead : lead & (0xFFU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3FU);
  }
  at += size;
  return code_point;
}

std::string Utf8Stream::add(std::string_view bytes) {
  pending_ += bytes;
  std::string_view remaining = pending_;
  std::string result;
  while (!remaining.empty()) {
    const Utf8Sequence sequence = first_sequence(remaining);
    if (sequence.cut) break;
    result += sequence.valid ? remaining.substr(0, sequence.size) : kReplacement;
    remaining.remove_prefix(sequence.size);
  }
  pending_ = std::string(remaining);
  return result;
}

std::string Utf8Stream::finish() {
  std::string result = to_valid_utf8(pending_);
  pending_.clear();
  return result;
}

bool is_whitespace(char32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0D) || c == 0x20;
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  if (const NewerRange* newer = find_newer(c)) return newer->category[0] == 'N';
  if ((c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6)) return true;  // Unicode 17
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

char32_t to_upper(char32_t code_point) {
  return map_case(code_point, utf8proc_toupper);
}
char32_t to_lower(char32_t code_point) {
  if (const LowerRange* newer = find_range(newer_lower(), code_point)) {
    return code_point + static_cast<char32_t>(newer->shift);
  }
  return map_case(code_point, utf8proc_tolower);
}
char32_t to_title(char32_t code_point) {
  return map_case(code_point, utf8proc_totitle);
}

bool is_inert_mark(char32_t code_point) {
  return find_range(inert_marks(), code_point) != nullptr;
}

std::optional<char32_t> older_equivalent(char32_t code_point) {
  // PCRE2 counts the Mongolian vowel separator as white space, Unicode no longer does.
  constexpr char32_t kVowelSeparator = 0x180E;
  if (code_point < 0x800) return std::nullopt;
  const NewerRange* newer = find_newer(code_point);
  const std::string_view category = code_point == kVowelSeparator ? "Cf"
                                    : newer != nullptr            ? newer->category
                                                                  : "";
  for (const Equivalent& equivalent : kEquivalents) {
    if (category != equivalent.category) continue;
    return code_point < 0x10000 ? equivalent.three_bytes : equivalent.four_bytes;
  }
  return std::nullopt;
}

}  // namespace vlm

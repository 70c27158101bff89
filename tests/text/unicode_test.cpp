#include "vlm/text/unicode/unicode.h"

#include "tests/support/catch.h"
#include "vlm/text/bpe/byte_level.h"

using namespace vlm;

TEST_CASE("broken UTF-8 becomes U+FFFD by maximal subparts") {
  const std::string r = "\uFFFD";
  CHECK(to_valid_utf8("a\u00e9\u20ac\U0001F642") == "a\u00e9\u20ac\U0001F642");
  CHECK(to_valid_utf8("\xff") == r);
  CHECK(to_valid_utf8("\xe2\x82") == r);                      // cut
  CHECK(to_valid_utf8("\xe2\x82x") == r + "x");               // one subpart of two bytes
  CHECK(to_valid_utf8("\xc0\x80") == r + r);                  // overlong
  CHECK(to_valid_utf8("\xed\xa0\x80") == r + r + r);          // surrogate
  CHECK(to_valid_utf8("\xf4\x90\x80\x80") == r + r + r + r);  // over U+10FFFF
  CHECK(to_valid_utf8("\xf0\x9f\x98") == r);
  CHECK(is_valid_utf8("twelve bytes \u20ac"));
  CHECK_FALSE(is_valid_utf8("twelve bytes \xe2\x82"));
}

TEST_CASE("a byte stream gives what the whole gives") {
  const std::string bytes = "a\xe2\x82\xac\xe2\x82z\xf0\x9f\x98\x80\xff\xe2\x82";
  Utf8Stream stream;
  std::string text;
  for (const char byte : bytes) {
    const std::string piece = stream.add(std::string(1, byte));
    CHECK(is_valid_utf8(piece));
    text += piece;
  }
  CHECK(text + stream.finish() == to_valid_utf8(bytes));
}

TEST_CASE("every code point survives its bytes") {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = to_utf8(c);
    std::size_t at = 0;
    if (!is_valid_utf8(text) || next_code_point(text, at) != c || at != text.size())
      FAIL(static_cast<std::uint32_t>(c));
  }
}

TEST_CASE("classes and replacements of code points") {
  CHECK(is_numeric(U'7'));
  CHECK(is_numeric(0xBD));     // ½
  CHECK(is_numeric(0x2163));   // Ⅳ
  CHECK(is_numeric(0x1E5F1));  // Unicode 16
  CHECK(is_numeric(0x11DE0));  // Unicode 17
  CHECK_FALSE(is_numeric(U'a'));
  CHECK_FALSE(is_numeric(0x4E00));
  CHECK(is_whitespace(0x3000));
  CHECK_FALSE(is_whitespace(0x180E));
  CHECK(to_lower(0x10D50) == 0x10D70);  // Unicode 16
  CHECK(to_upper(0xE9) == 0xC9);
  CHECK(older_equivalent(0x31350) == 0x20000);  // a letter of Unicode 15
  CHECK(older_equivalent(0x180E) == 0x200B);
  CHECK_FALSE(older_equivalent(0x4E00).has_value());
  CHECK(is_inert_mark(0x1AC1));
  CHECK_FALSE(is_inert_mark(0x301));
}

TEST_CASE("every newer category has a replacement of the same length") {
  for (const NewerRange& range : newer_ranges()) {
    for (char32_t c = range.first; c <= range.last; ++c) {
      const auto older = older_equivalent(c);
      REQUIRE(older.has_value());
      CHECK(to_utf8(*older).size() == to_utf8(c).size());
    }
  }
}

TEST_CASE("the alphabet of bytes goes both ways") {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  std::string symbols;
  append_byte_symbols(bytes, symbols);
  CHECK(symbols.starts_with("\u0100\u0101"));
  std::string back;
  std::size_t at = 0;
  while (at < symbols.size()) back += byte_of_symbol(next_code_point(symbols, at)).value();
  CHECK(back == bytes);
  CHECK_FALSE(byte_of_symbol(U' ').has_value());
  CHECK_FALSE(byte_of_symbol(0x4E00).has_value());
}

// Names of files that aren't UTF-8, as text and back.
#include "vlm/core/byte_escape.h"

#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

bool is_valid(const std::string& text) {
  return OrderedJson(text).dump(-1, ' ', false, OrderedJson::error_handler_t::ignore) ==
         OrderedJson(text).dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

TEST_CASE("bytes that aren't UTF-8 are escaped, and names stay different") {
  CHECK(escape_bytes("a b.png") == "a b.png");
  CHECK(escape_bytes("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80") ==
        "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK(escape_bytes("a\xff.png") == "a\\xff.png");
  CHECK(escape_bytes("a\\xff.png") == "a\\x5cxff.png");
  CHECK(escape_bytes("\\x5c") == "\\x5cx5c");
  CHECK(escape_bytes("C:\\xyz \\x4 \\") == "C:\\xyz \\x4 \\");
  CHECK(escape_bytes("\xc3") == "\\xc3");                             // cut off
  CHECK(escape_bytes("\xc0\xaf") == "\\xc0\\xaf");                    // too long a form
  CHECK(escape_bytes("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // a surrogate
  CHECK(escape_bytes("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // beyond U+10FFFF
  CHECK(as_utf8("a\\xff") == "a\\xff");
  CHECK(as_utf8("a\\xff\xff") == "a\\x5cxff\\xff");
}

TEST_CASE("what was escaped comes back, byte for byte") {
  std::mt19937 random(5);
  std::set<std::string> names, escaped;
  const std::string alphabet = "ax5c\\f\xc3\xa9\xff\xe2\x82";
  for (int i = 0; i < 20000; ++i) {
    std::string name;
    for (std::size_t n = random() % 12; n > 0; --n) name += alphabet[random() % alphabet.size()];
    const std::string text = escape_bytes(name);
    INFO(text);
    REQUIRE(unescape_bytes(text) == name);
    REQUIRE(is_valid(text));
    names.insert(name);
    escaped.insert(text);
  }
  CHECK(names.size() == escaped.size());
}

TEST_CASE("JSON and errors hold what isn't UTF-8 escaped") {
  const OrderedJson row = {{"id", "a\xff"}, {"b\xfe", {"ok", "\xc3\xa9", 1.5}}};
  CHECK(dump_text(row) == "{\"id\":\"a\\\\xff\",\"b\\\\xfe\":[\"ok\",\"\xc3\xa9\",1.5]}");
  CHECK(std::string(Error({.what = "gone", .where = "a\xff.png"}).what()) == "a\\xff.png: gone");
}

}  // namespace
}  // namespace vlm

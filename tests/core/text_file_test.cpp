#include "vlm/core/text_file.h"

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

using namespace std::string_literals;

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  for (const TextLine& line : split_lines(text)) {
    lines.push_back(std::to_string(line.number) + " " + std::string(line.text));
  }
  return lines;
}

TEST_CASE("lines end with LF, CRLF or CR, the last one with nothing or one of these") {
  using Lines = std::vector<std::string>;
  CHECK(lines_of("a\nb\r\nc\rd") == Lines{"1 a", "2 b", "3 c", "4 d"});
  CHECK(lines_of("a\n\n\r\n\r\rb\n") == Lines{"1 a", "2 ", "3 ", "4 ", "5 ", "6 b"});
  CHECK(lines_of("\r\n") == Lines{"1 "});
  CHECK(lines_of("").empty());
}

TEST_CASE("a byte order mark is no text, and one of another encoding is told") {
  const ScratchFolder folder;
  const auto load = [&](const std::string& bytes) {
    return load_plain_text(folder.write("t.txt", bytes));
  };
  CHECK(load("\xEF\xBB\xBF"
             "a") == "a");
  CHECK(load("\xEF\xBB\xBF").empty());
  CHECK(load("\xEF\xBB"
             "a") ==
        "\xEF\xBB"
        "a");
  CHECK(load("a\xEF\xBB\xBF") == "a\xEF\xBB\xBF");
  const std::string file = folder.at("t.txt");
  const auto refused = [&](const std::string& encoding) {
    return file + ": the text is not UTF-8: got the byte order mark of " + encoding +
           ", wanted UTF-8 (convert it: iconv -f " + encoding + " -t UTF-8)";
  };
  CHECK_THROWS_WITH(load("\xFF\xFE"
                         "a\0"s),
                    refused("UTF-16"));
  CHECK_THROWS_WITH(load("\xFE\xFF\0a"s), refused("UTF-16"));
  CHECK_THROWS_WITH(load("\xFF\xFE\0\0a\0\0\0"s), refused("UTF-32"));
  CHECK_THROWS_WITH(load("\0\0\xFE\xFF"s), refused("UTF-32"));
}

TEST_CASE("a NUL byte is no text") {
  const ScratchFolder folder;
  const std::string file = folder.write("t.txt", "a\nb\0"s);
  CHECK_THROWS_WITH(load_plain_text(file),
                    file +
                        ":2: a NUL byte in the text: wanted UTF-8 (a binary file, or text in "
                        "UTF-16 without a byte order mark)");
}

}  // namespace
}  // namespace vlm

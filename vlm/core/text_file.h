// Text that people write → its characters and lines, whatever editor and system it comes from.
//
// Files may begin with the byte order mark of UTF-8, which is no text, and end their lines with LF,
// CRLF or a lone CR. UTF-16 and UTF-32 are refused by name, and so are NUL bytes, which no text
// has. Whether the bytes are UTF-8 is for those to say who read the text (JSON's parser,
// vlm/text/unicode/unicode.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

// Bytes of a mark of UTF-8 in front: 3 or 0. Throws Error naming `where` and the encoding for
// another mark. Needs the first four bytes, or all.
std::size_t mark_size(std::string_view start, const std::string& where);

// Throws Error naming the line of the first NUL byte, `first_line` being the text's own first.
void check_no_nul(std::string_view text, const std::string& where, std::int64_t first_line = 1);

// Whole file → its text, without the mark. Throws Error as load_text, mark_size and check_no_nul.
std::string load_plain_text(const std::filesystem::path& path, std::size_t max_bytes = 1ULL << 30);

struct TextLine {
  std::string_view text;  // without its end
  std::int64_t number;    // from 1
};

// The lines of a text, empty ones too; what stands behind the last end of line is one if it is not
// empty.
std::vector<TextLine> split_lines(std::string_view text);

}  // namespace vlm

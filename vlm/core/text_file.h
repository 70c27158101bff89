// Text that people write → its characters and lines, whatever editor and system it comes from.
//
// Files may begin with the byte order mark of UTF-8, which is no text, and end their lines with LF,
// CRLF or a lone CR. UTF-16, UTF-32 and NUL bytes are refused with an error that names them.
// Whether the text is valid UTF-8 is not checked here (JSON's parser and vlm/text/unicode/unicode.h
// do).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

// Size of the UTF-8 byte order mark at the start: 3 or 0 bytes. `start` holds at least the first
// four bytes, or the whole text if that is shorter. Throws Error naming `where` and the encoding
// for the mark of another one.
std::size_t mark_size(std::string_view start, const std::string& where);

// Throws Error naming the line of the first NUL byte; `first_line` is the number of the text's
// first line.
void check_no_nul(std::string_view text, const std::string& where, std::int64_t first_line = 1);

// Whole file → its text, without the mark. Throws Error as load_text, mark_size and check_no_nul.
std::string load_plain_text(const std::filesystem::path& path, std::size_t max_bytes = 1ULL << 30);

struct TextLine {
  std::string_view text;  // without its end
  std::int64_t number;    // from 1
};

// The lines of a text, empty ones included. Text behind the last line end is a line too, unless it
// is empty. Points into `text`.
std::vector<TextLine> split_lines(std::string_view text);

}  // namespace vlm

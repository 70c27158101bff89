#include "vlm/core/text_file.h"

#include <algorithm>
#include <array>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {

using namespace std::string_view_literals;

std::size_t mark_size(std::string_view start, const std::string& where) {
  constexpr std::string_view kUtf8 = "\xEF\xBB\xBF";
  if (start.starts_with(kUtf8)) return kUtf8.size();
  struct Mark {
    std::string_view bytes;
    const char* encoding;
  };
  // The mark of UTF-32, little end first, begins with that of UTF-16.
  constexpr std::array kMarks = {Mark{"\xFF\xFE\0\0"sv, "UTF-32"}, Mark{"\0\0\xFE\xFF"sv, "UTF-32"},
                                 Mark{"\xFF\xFE"sv, "UTF-16"}, Mark{"\xFE\xFF"sv, "UTF-16"}};
  for (const Mark& mark : kMarks) {
    if (!start.starts_with(mark.bytes)) continue;
    throw Error({.what = "the text is not UTF-8",
                 .where = where,
                 .got = concat("the byte order mark of ", mark.encoding),
                 .wanted = "UTF-8",
                 .hint = concat("convert it: iconv -f ", mark.encoding, " -t UTF-8")});
  }
  return 0;
}

void check_no_nul(std::string_view text, const std::string& where, std::int64_t first_line) {
  const std::size_t at = text.find('\0');
  if (at == std::string_view::npos) return;
  const auto line = first_line + std::count(text.begin(), text.begin() + std::ptrdiff_t(at), '\n');
  throw Error({.what = "a NUL byte in the text",
               .where = concat(where, ":", line),
               .wanted = "UTF-8",
               .hint = "a binary file, or text in UTF-16 without a byte order mark"});
}

std::string load_plain_text(const std::filesystem::path& path, std::size_t max_bytes) {
  std::string text = load_text(path, max_bytes);
  text.erase(0, mark_size(text, path.string()));
  check_no_nul(text, path.string());
  return text;
}

std::vector<TextLine> split_lines(std::string_view text) {
  std::vector<TextLine> lines;
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find_first_of("\r\n"), text.size());
    lines.push_back({text.substr(0, end), number});
    text.remove_prefix(end);
    if (!text.empty()) text.remove_prefix(text.starts_with("\r\n") ? 2 : 1);
  }
  return lines;
}

}  // namespace vlm

// JSONL: an object a line. Opening walks over the file once; 16 bytes a line stay in memory. Empty
// lines are passed over. A line ends with LF, CRLF or a lone CR, none of which JSON has inside of a
// string.
#include <algorithm>

#include "data/formats/json_text_rows.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

namespace vlm::data {
namespace {

// Two searches for one letter each are quicker than one for both.
std::size_t find_line_end(std::string_view text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  return std::min(line.find('\r'), line.size());
}

// Reads up to the end of the line, and over it.
void read_line(ByteStream& stream, std::string& line) {
  line.clear();
  for (;;) {
    const std::string_view bytes = stream.next_bytes();
    const std::size_t end = find_line_end(bytes);
    line += bytes.substr(0, end);
    const bool is_ended = end < bytes.size() || bytes.empty();
    stream.skip(end);
    if (is_ended) break;
  }
  if (stream.at_end()) return;
  const bool is_return = stream.peek() == '\r';
  stream.skip(1);
  if (is_return && !stream.at_end() && stream.peek() == '\n') stream.skip(1);
}

class JsonlRows : public JsonTextRows {
 public:
  explicit JsonlRows(const std::filesystem::path& path) : JsonTextRows(path) {
    ByteStream stream(file_);
    skip_mark(stream, path_);
    std::string line;
    for (std::uint32_t number = 1; !stream.at_end(); ++number) {
      const std::uint64_t begin = stream.at();
      read_line(stream, line);
      if (line.find_first_not_of(" \t") != std::string::npos) add(begin, line, number);
    }
    lines_.shrink_to_fit();
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(lines_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", line_at(index).number);
  }

  void add_to(ListDigest& digest) const override {
    ListDigest lines;
    for (std::int64_t i = 0; i < size(); ++i) lines.add(text(i));
    digest.add(lines.value());
  }

 private:
  struct Line {
    std::uint64_t begin;
    std::uint32_t size, number;
  };

  const Line& line_at(std::int64_t index) const {
    return lines_.at(static_cast<std::size_t>(index));
  }

  std::string text(std::int64_t index) const override {
    return file_.read(line_at(index).begin, line_at(index).size);
  }

  void add(std::uint64_t begin, std::string_view line, std::uint32_t number) {
    if (line.size() > UINT32_MAX) {
      throw Error({.what = "the line is too long",
                   .where = concat(path_, ":", number),
                   .got = concat(line.size(), " bytes"),
                   .wanted = concat("at most ", UINT32_MAX)});
    }
    lines_.push_back({begin, static_cast<std::uint32_t>(line.size()), number});
  }

  std::vector<Line> lines_;
};

}  // namespace

std::unique_ptr<RowSource> open_jsonl_rows(const std::filesystem::path& path) {
  return std::make_unique<JsonlRows>(path);
}

}  // namespace vlm::data

#include "data/formats/jsonl_file.h"

#include <algorithm>

#include "data/formats/row_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Two searches for one letter each are quicker than one for both.
std::size_t find_line_end(std::string_view text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  return std::min(line.find('\r'), line.size());
}

class JsonlRows : public RowSource {
 public:
  explicit JsonlRows(const std::filesystem::path& path)
      : path_(path.string()), folder_(path.parent_path()), file_(path_) {}

  std::int64_t size() const override { return file_.size(); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", file_.number(index));
  }

  Row at(std::int64_t index) const override {
    Row row{.columns = {}, .where = where(index), .folder = folder_};
    row.columns = parse_json(file_.text(index), row.where, Numbers::kAsWritten);
    return row;
  }

 private:
  std::string path_;
  std::filesystem::path folder_;
  JsonlFile file_;
};

}  // namespace

JsonlFile::JsonlFile(const std::string& path, const Visit& visit) : file_(path) {
  ByteStream stream(file_);
  skip_mark(stream, path);
  std::string line;
  for (std::uint32_t number = 1; !stream.at_end(); ++number) {
    const std::uint64_t begin = stream.at();
    line.clear();
    for (;;) {
      const std::string_view rest = stream.rest();
      const std::size_t end = find_line_end(rest);
      line += rest.substr(0, end);
      const bool is_ended = end < rest.size() || rest.empty();
      stream.skip(end);
      if (is_ended) break;
    }
    if (!stream.at_end()) {
      const bool is_return = stream.peek() == '\r';
      stream.skip(1);
      if (is_return && !stream.at_end() && stream.peek() == '\n') stream.skip(1);
    }
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    add(begin, line, number);
    if (visit) visit(line, number);
  }
  lines_.shrink_to_fit();
}

void JsonlFile::add(std::uint64_t begin, std::string_view line, std::uint32_t number) {
  if (line.size() > UINT32_MAX) {
    throw Error({.what = "the line is too long",
                 .where = concat(file_.path(), ":", number),
                 .got = concat(line.size(), " bytes"),
                 .wanted = concat("at most ", UINT32_MAX)});
  }
  lines_.push_back({begin, static_cast<std::uint32_t>(line.size()), number});
}

std::string JsonlFile::text(std::int64_t index) const {
  return file_.read(line_at(index).begin, line_at(index).size);
}

std::unique_ptr<RowSource> open_jsonl_rows(const std::filesystem::path& path) {
  return std::make_unique<JsonlRows>(path);
}

}  // namespace vlm::data

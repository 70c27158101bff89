// JSONL: an object a line. The index holds 16 bytes a line.
#include <algorithm>

#include "data/formats/mapped_file.h"
#include "data/formats/row_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

class JsonlRows : public RowSource {
 public:
  explicit JsonlRows(const std::filesystem::path& path)
      : path_(path.string()), folder_(path.parent_path()), file_(path_) {
    const std::string_view text = file_.text();
    std::uint32_t number = 1;
    for (std::size_t begin = 0; begin < text.size(); ++number) {
      const std::string_view line = line_at(begin);
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
        lines_.push_back({begin, number});
      }
      begin += line.size() + 1;
    }
    lines_.shrink_to_fit();
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(lines_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", lines_.at(static_cast<std::size_t>(index)).number);
  }

  Row at(std::int64_t index) const override {
    const std::size_t begin = lines_.at(static_cast<std::size_t>(index)).begin;
    Row row{.columns = {}, .where = where(index), .folder = folder_};
    row.columns = parse_json(line_at(begin), row.where);
    return row;
  }

 private:
  struct Line {
    std::uint64_t begin;
    std::uint32_t number;
  };

  std::string_view line_at(std::size_t begin) const {
    const std::string_view rest = file_.text().substr(begin);
    return rest.substr(0, std::min(rest.find('\n'), rest.size()));
  }

  std::string path_;
  std::filesystem::path folder_;
  MappedFile file_;
  std::vector<Line> lines_;
};

}  // namespace

std::unique_ptr<RowSource> open_jsonl_rows(const std::filesystem::path& path) {
  return std::make_unique<JsonlRows>(path);
}

}  // namespace vlm::data

// Tar shards in WebDataset's layout: members that follow each other and share the name up to the
// first dot are one row.
//
// 0001.jpg, 0001.left.png: its pictures, in their order. 0001.json: its columns; 0001.txt and
// 0001.cls: columns of that name. Other members are passed over, and so are hidden names and what
// archivers add ("__MACOSX", "._0001.jpg").
#include "data/formats/row_source.h"
#include "data/formats/tar_reader.h"
#include "data/media/file_kinds.h"
#include "data/media/media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

constexpr std::uint64_t kMostText = 1 << 24;  // bytes of a member that is text

struct TarSample {
  std::string key;
  std::vector<TarMember> pictures = {}, texts = {};
};

class TarRows : public RowSource {
 public:
  explicit TarRows(const std::filesystem::path& path) : path_(path.string()) {
    TarReader reader(path_);
    TarMember member;
    std::string before;
    KindCounts left_out;
    while (reader.next(member)) {
      if (has_side_name(member.name)) continue;
      const std::string unreadable = unreadable_suffix(member.name);
      if (!unreadable.empty()) ++left_out[unreadable];
      const auto [key, suffix] = split_member_name(member.name);
      if (samples_.empty() || key != before) {
        drop_empty();
        samples_.push_back({.key = key});
      }
      before = key;
      if (has_image_suffix(member.name)) {
        samples_.back().pictures.push_back(member);
      } else if (suffix == "json" || suffix == "txt" || suffix == "cls") {
        samples_.back().texts.push_back(member);
      }
    }
    drop_empty();
    warn_of_left_out(left_out, path_);
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(samples_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ": ", samples_.at(static_cast<std::size_t>(index)).key);
  }

  Row at(std::int64_t index) const override {
    const TarSample& sample = samples_.at(static_cast<std::size_t>(index));
    Row row{.columns = Json::object(), .where = where(index), .folder = {}};
    for (const TarMember& member : sample.texts) add_columns(row, member);
    for (const TarMember& member : sample.pictures) row.members.push_back(ref_of(member));
    return row;
  }

 private:
  void drop_empty() {
    if (samples_.empty()) return;
    if (samples_.back().pictures.empty() && samples_.back().texts.empty()) samples_.pop_back();
  }

  MediaRef ref_of(const TarMember& member) const {
    return {.name = concat(path_, "/", member.name),
            .archive = path_,
            .offset = member.offset,
            .size = member.size};
  }

  void add_columns(Row& row, const TarMember& member) const {
    const std::string where = concat(path_, "/", member.name);
    if (member.size > kMostText) {
      throw Error({.what = "the member is too large",
                   .where = where,
                   .wanted = concat("at most ", kMostText, " bytes")});
    }
    std::string text = read_bytes(ref_of(member));
    const std::string suffix = split_member_name(member.name).second;
    if (suffix != "json") {
      text = text_member(text, where);
      while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();  // the file's, not said
      row.columns[suffix] = std::move(text);
      return;
    }
    const Json columns = parse_json(text, where, Numbers::kAsWritten);
    if (!columns.is_object()) {
      throw Error(
          {.what = "wrong type", .where = where, .got = describe(columns), .wanted = "an object"});
    }
    row.columns.update(columns);
  }

  std::string path_;
  std::vector<TarSample> samples_;
};

}  // namespace

std::unique_ptr<RowSource> open_tar_rows(const std::filesystem::path& path) {
  return std::make_unique<TarRows>(path);
}

}  // namespace vlm::data

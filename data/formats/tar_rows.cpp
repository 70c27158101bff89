// Tar shards in WebDataset's layout: members that follow each other and share the name up to the
// first dot are one row.
//
// 0001.jpg, 0001.left.png: its pictures, in their order. 0001.json: its columns; 0001.txt and
// 0001.cls: columns of that name. Other members are passed over, and so are hidden names and what
// archivers add ("__MACOSX", "._0001.jpg").
#include <algorithm>

#include "data/formats/row_source.h"
#include "data/formats/tar_reader.h"
#include "data/media/file_kinds.h"
#include "data/media/media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

namespace vlm::data {
namespace {

constexpr std::uint64_t kMostText = 1 << 24;  // bytes of a member that is text

struct TarSample {
  std::string key;
  std::vector<TarMember> pictures = {}, texts = {};
};

class TarRows : public RowSource {
 public:
  TarRows(const std::filesystem::path& path, TarTexts texts) : path_(path.string()), texts_(texts) {
    TarReader reader(path_);
    TarMember member;
    std::string before;
    while (reader.next(member)) {
      if (has_side_name(member.name)) continue;
      const std::string unreadable = unreadable_suffix(member.name);
      if (!unreadable.empty()) ++left_out_[unreadable];
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
    // In the order in which their columns are shown; of two with one name the last counts.
    for (TarSample& sample : samples_) {
      std::stable_sort(sample.texts.begin(), sample.texts.end(),
                       [](const auto& a, const auto& b) { return suffix_of(a) < suffix_of(b); });
    }
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(samples_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ": ", sample_at(index).key);
  }

  std::string name(std::int64_t index) const override {
    return concat(path_, "/", sample_at(index).key);
  }

  Row at(std::int64_t index) const override {
    Row row{.columns = Json(outline(index)), .where = where(index), .folder = {}};
    for (const TarMember& member : sample_at(index).pictures) {
      row.members.push_back(ref_of(member));
    }
    return row;
  }

  OrderedJson outline(std::int64_t index) const override {
    OrderedJson columns = OrderedJson::object();
    for (const TarMember& member : sample_at(index).texts) add_columns(columns, member);
    return columns;
  }

  void add_to(ListDigest& digest) const override {
    digest.add(path_);
    for (const TarSample& sample : samples_) {
      for (const auto* members : {&sample.pictures, &sample.texts}) {
        for (const TarMember& member : *members) {
          digest.add(member.name);
          digest.add(member.offset);
          digest.add(member.size);
        }
      }
    }
  }

  KindCounts left_out() const override { return left_out_; }

 private:
  const TarSample& sample_at(std::int64_t index) const {
    return samples_.at(static_cast<std::size_t>(index));
  }

  static std::string suffix_of(const TarMember& member) {
    return split_member_name(member.name).second;
  }

  void drop_empty() {
    if (samples_.empty()) return;
    const bool has_row = texts_ == TarTexts::kRows && !samples_.back().texts.empty();
    if (samples_.back().pictures.empty() && !has_row) samples_.pop_back();
  }

  MediaRef ref_of(const TarMember& member) const {
    return {.name = concat(path_, "/", member.name),
            .archive = path_,
            .offset = member.offset,
            .size = member.size};
  }

  void add_columns(OrderedJson& row, const TarMember& member) const {
    const std::string where = concat(path_, "/", member.name);
    if (member.size > kMostText) {
      throw Error({.what = "the member is too large",
                   .where = where,
                   .wanted = concat("at most ", kMostText, " bytes")});
    }
    std::string text = read_bytes(ref_of(member));
    const std::string suffix = suffix_of(member);
    if (suffix != "json") {
      text = text_member(text, where);
      while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();  // the file's, not said
      row[suffix] = std::move(text);
      return;
    }
    const OrderedJson columns = parse_ordered_json(text, where, Numbers::kAsWritten);
    if (!columns.is_object()) {
      throw Error({.what = "wrong type",
                   .where = where,
                   .got = describe(Json(columns)),
                   .wanted = "an object"});
    }
    row.update(columns);
  }

  std::string path_;
  TarTexts texts_;
  std::vector<TarSample> samples_;
  KindCounts left_out_;
};

}  // namespace

std::unique_ptr<RowSource> open_tar_rows(const std::filesystem::path& path, TarTexts texts) {
  return std::make_unique<TarRows>(path, texts);
}

}  // namespace vlm::data

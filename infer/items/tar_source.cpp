#include "infer/items/tar_source.h"

#include <algorithm>
#include <map>

#include "data/formats/tar_reader.h"
#include "data/media/media.h"
#include "infer/items/messages.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::uint64_t kMostText = 1 << 24;  // bytes of a .json, .txt or .cls member

using Member = data::TarMember;

bool is_text(const std::string& suffix) {
  return suffix == "json" || suffix == "txt" || suffix == "cls";
}

class TarSource : public EntrySource {
 public:
  TarSource(const std::string& path, IdCheck& ids) : path_(path) {
    data::TarReader reader(path);
    Member member;
    std::string key, before;
    while (reader.next(member)) {
      if (data::has_side_name(member.name)) continue;
      const std::string unreadable = data::unreadable_suffix(member.name);
      if (!unreadable.empty()) ++left_out_[unreadable];
      const auto [name, suffix] = data::split_member_name(member.name);
      if (samples_.empty() || name != before) {
        drop_without_pictures();
        samples_.push_back({.key = name});
      }
      before = name;
      add(samples_.back(), member, suffix);
    }
    drop_without_pictures();
    if (samples_.empty()) {
      const std::string other = data::to_text(left_out_);
      throw Error({.what = "no pictures in the archive",
                   .where = path,
                   .got = other,
                   .hint = other.empty() ? "" : "these kinds can't be read"});
    }
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      ids.add(id_of(samples_[i]), path, static_cast<std::int64_t>(i) + 1);
    }
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(samples_.size()); }

  Entry at(std::int64_t index) const override {
    const Sample& sample = samples_.at(static_cast<std::size_t>(index));
    const std::string id = id_of(sample);
    std::vector<MediaRef> pictures;
    for (const Member& member : sample.pictures) {
      pictures.push_back({.name = concat(path_, "/", member.name),
                          .archive = path_,
                          .offset = member.offset,
                          .size = member.size});
    }
    Entry entry;
    try {
      entry = read_texts(sample, std::move(pictures));
    } catch (const Error& error) {
      entry = {.error = located(error, id).what()};
    } catch (const Json::exception& error) {  // a type that no reader looked at
      const Error malformed({.what = "malformed row", .where = id, .got = error.what()});
      entry = {.error = malformed.what()};
    }
    entry.id = id;
    entry.path = concat(path_, "/", sample.pictures[0].name);
    return entry;
  }

  std::vector<std::string> columns() const override { return columns_; }
  bool asks() const override { return asks_; }
  data::KindCounts left_out() const override { return left_out_; }

  std::vector<std::string> files() const override { return {path_}; }

  void add_to(ListDigest& digest) const override {
    digest.add(path_);
    for (const Sample& sample : samples_) {
      for (const Member& member : sample.pictures) add_member(digest, member);
      for (const auto& [suffix, member] : sample.texts) add_member(digest, member);
    }
  }

 private:
  struct Sample {
    std::string key;
    std::vector<Member> pictures = {};
    std::map<std::string, Member> texts = {};  // by suffix
  };

  static void add_member(ListDigest& digest, const Member& member) {
    digest.add(member.name);
    digest.add(member.offset);
    digest.add(member.size);
  }

  std::string id_of(const Sample& sample) const {
    return escape_bytes(concat(path_, "/", sample.key));
  }

  void drop_without_pictures() {
    if (!samples_.empty() && samples_.back().pictures.empty()) samples_.pop_back();
  }

  void add(Sample& sample, const Member& member, const std::string& suffix) {
    if (data::has_image_suffix(member.name)) {
      sample.pictures.push_back(member);
    } else if (is_text(suffix)) {
      sample.texts[suffix] = member;
      if (suffix == "json") return collect_columns(member);
      add_column(suffix);
    }
  }

  void collect_columns(const Member& member) {
    Json row;
    try {
      row = parse_json(read(member), member.name);
    } catch (const Error&) {
    }
    if (!row.is_object()) return;  // an error of its own entry
    for (const auto& [key, value] : row.items()) {
      const bool is_question = key == "question" || key == "prompt" || key == "messages";
      asks_ = asks_ || is_question;
      if (!is_question) add_column(key);
    }
  }

  void add_column(const std::string& name) {
    if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) {
      columns_.push_back(name);
    }
  }

  std::string read(const Member& member) const {
    if (member.size > kMostText) {
      throw Error({.what = "the member is too large",
                   .where = member.name,
                   .wanted = concat("at most ", kMostText, " bytes")});
    }
    return data::read_bytes({.name = concat(path_, "/", member.name),
                             .archive = path_,
                             .offset = member.offset,
                             .size = member.size});
  }

  Entry read_texts(const Sample& sample, std::vector<MediaRef> pictures) const {
    OrderedJson row = OrderedJson::object();
    for (const auto& [suffix, member] : sample.texts) {
      const std::string text = read(member);
      if (suffix != "json") {
        row[suffix] = data::text_member(text, member.name);
        continue;
      }
      const OrderedJson fields = parse_ordered_json(text, member.name, Numbers::kAsWritten);
      if (!fields.is_object()) {
        throw Error({.what = "wrong type",
                     .where = member.name,
                     .got = describe(Json(fields)),
                     .wanted = "an object"});
      }
      row.update(fields);
    }
    return parse_sample_row(row, std::move(pictures));
  }

  std::string path_;
  std::vector<Sample> samples_;
  std::vector<std::string> columns_;
  data::KindCounts left_out_;
  bool asks_ = false;
};

}  // namespace

std::unique_ptr<EntrySource> open_tar_source(const std::string& path, IdCheck& ids) {
  return std::make_unique<TarSource>(path, ids);
}

}  // namespace vlm::infer

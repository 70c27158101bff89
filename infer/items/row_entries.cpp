#include "infer/items/row_entries.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "data/conversations/row_format.h"
#include "infer/items/row_entry.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

class RowEntries : public EntrySource {
 public:
  RowEntries(const std::string& path, std::string shown, RowOptions options, IdCheck& ids)
      : path_(path),
        shown_(std::move(shown)),
        options_(std::move(options)),
        rows_(data::open_rows(path, data::TarTexts::kNotes)),
        is_table_(!rows_->blocks().empty()) {
    if (size() == 0) throw no_rows();
    bool has_rows = false;
    for (std::int64_t i = 0; i < size(); ++i) has_rows = note(i, ids) || has_rows;
    if (!has_rows) throw Error({.what = "no rows in the file", .where = path, .got = at(0).error});
  }

  std::int64_t size() const override { return rows_->size(); }

  Entry at(std::int64_t index) const override {
    const std::string place = rows_->where(index);
    Entry entry;
    std::string id;
    try {
      const data::Row row = rows_->at(index);
      id = id_of(row);
      entry = read_row(row, rows_->outline(index), options_);
    } catch (const Error& error) {
      const bool is_placed = error.parts().where.starts_with(place);
      entry = {.error = is_placed ? error.what() : located(error, place).what()};
    } catch (const Json::exception& error) {  // a type that no reader looked at
      const Error malformed({.what = "malformed row", .where = place, .got = error.what()});
      entry = {.error = malformed.what()};
    }
    entry.id = id.empty() ? name_of(index) : id;
    if (!entry.media.empty() && !entry.media[0].bytes) entry.path = entry.media[0].name;
    return entry;
  }

  bool shares_media(std::int64_t index) const override {
    return is_table_ ? index % kComparedRows > 0 : shares_.at(static_cast<std::size_t>(index));
  }

  std::vector<std::string> columns() const override { return columns_; }
  bool asks() const override { return asks_; }
  bool has_rules() const override { return has_rules_; }
  bool shows_videos() const override { return shows_videos_; }
  std::vector<std::string> files() const override { return {path_}; }
  data::KindCounts left_out() const override { return rows_->left_out(); }
  void add_to(ListDigest& digest) const override { rows_->add_to(digest); }

 private:
  Error no_rows() const {
    const std::string other = data::to_text(left_out());
    return Error(
        {.what = path_.ends_with(".tar") ? "no pictures in the archive" : "no rows in the file",
         .where = path_,
         .got = other,
         .hint = other.empty() ? "" : "these kinds can't be read"});
  }

  std::string name_of(std::int64_t index) const {
    const std::string name = rows_->name(index);
    return escape_bytes(name.starts_with(path_) ? shown_ + name.substr(path_.size()) : name);
  }

  // In a tar the sample's name is the row's.
  std::string id_of(const data::Row& row) const {
    const bool is_named = !row.members.empty() && !options_.id_column;
    return is_named ? "" : read_row_id(row, options_);
  }

  // A row of the file, while that is opened. False for one that can't be read.
  bool note(std::int64_t index, IdCheck& ids) {
    bool is_shared = false;
    try {
      const data::Row row = is_table_ ? outline_row(*rows_, index) : rows_->at(index);
      data::check_row(row);
      const std::string id = id_of(row);
      ids.add(id.empty() ? name_of(index) : id, *rows_, index);
      const RowMention mention = mention_of(row, options_);
      for (const std::string& name : mention.columns) {
        if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) {
          columns_.push_back(name);
        }
      }
      asks_ = asks_ || mention.asks;
      has_rules_ = has_rules_ || mention.has_rule;
      shows_videos_ = shows_videos_ || mention.has_video;
      is_shared = mention.media == media_before_;
      media_before_ = mention.media;
    } catch (const Error&) {
      media_before_ = {};
      if (!is_table_) shares_.push_back(false);
      return false;
    }
    if (!is_table_) shares_.push_back(is_shared);
    return true;
  }

  const std::string path_, shown_;
  const RowOptions options_;
  const std::unique_ptr<data::RowSource> rows_;
  const bool is_table_;
  std::optional<std::uint64_t> media_before_;  // a digest; none: nobody shares it
  std::vector<bool> shares_;
  std::vector<std::string> columns_;
  bool asks_ = false, has_rules_ = false, shows_videos_ = false;
};

}  // namespace

void IdCheck::add(const std::string& id, const data::RowSource& rows, std::int64_t index) {
  if (sources_.empty() || sources_.back() != &rows) sources_.push_back(&rows);
  places_.push_back({xxh3_64(id), static_cast<std::uint32_t>(sources_.size() - 1), index});
}

void IdCheck::check() {
  std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
    return std::tie(a.digest, a.source, a.row) < std::tie(b.digest, b.source, b.row);
  });
  for (std::size_t i = 1; i < places_.size(); ++i) {
    const Place &first = places_[i - 1], &second = places_[i];
    if (first.digest != second.digest) continue;
    throw Error({.what = "id given twice",
                 .where = sources_[second.source]->where(second.row),
                 .hint = concat("the same id as ", sources_[first.source]->where(first.row))});
  }
  places_ = {};
}

std::unique_ptr<EntrySource> open_row_entries(const std::string& path, const std::string& shown,
                                              const RowOptions& options, IdCheck& ids) {
  return std::make_unique<RowEntries>(path, shown, options, ids);
}

}  // namespace vlm::infer

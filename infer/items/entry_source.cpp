#include "infer/items/entry_source.h"

#include <algorithm>
#include <filesystem>
#include <istream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "data/formats/data_files.h"
#include "data/formats/row_source.h"
#include "infer/items/path_search.h"
#include "infer/items/row_entries.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/text_file.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

bool ends_with_any(const std::string& name, std::initializer_list<const char*> suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](const char* suffix) { return name.ends_with(suffix); });
}

bool is_pattern(const std::string& path) {
  std::error_code ignored;
  return path.find_first_of("*?[") != std::string::npos && !fs::exists(path, ignored);
}

// Picture or video files, an entry each.
class MediaFiles : public EntrySource {
 public:
  explicit MediaFiles(MediaKind kind) : kind_(kind) {}

  void add(FoundPath path) { paths_.push_back(std::move(path)); }

  std::int64_t size() const override { return static_cast<std::int64_t>(paths_.size()); }

  Entry at(std::int64_t index) const override {
    const auto& [path, error] = paths_.at(static_cast<std::size_t>(index));
    Entry entry{.id = escape_bytes(path), .path = path, .error = error};
    if (error.empty()) entry.media = {{.kind = kind_, .name = path}};
    return entry;
  }

  void add_to(ListDigest& digest) const override {
    for (const FoundPath& found : paths_) digest.add(found.path);
  }

  bool shows_videos() const override { return kind_ == MediaKind::kVideo; }

 private:
  const MediaKind kind_;
  std::vector<FoundPath> paths_;
};

// Several sources in a row, and what folders held besides.
class Chain : public EntrySource {
 public:
  Chain(std::vector<std::unique_ptr<EntrySource>> parts, data::KindCounts left_out)
      : parts_(std::move(parts)), left_out_(std::move(left_out)) {
    for (const auto& part : parts_) {
      begins_.push_back(size_);
      size_ += part->size();
      for (const auto& [suffix, count] : part->left_out()) left_out_[suffix] += count;
    }
  }

  std::int64_t size() const override { return size_; }

  Entry at(std::int64_t index) const override {
    const auto [part, inside] = find(index);
    return part->at(inside);
  }

  bool shares_media(std::int64_t index) const override {
    const auto [part, inside] = find(index);
    return inside > 0 && part->shares_media(inside);
  }

  std::vector<std::string> columns() const override {
    std::vector<std::string> names;
    for (const auto& part : parts_) {
      for (const std::string& name : part->columns()) {
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
      }
    }
    return names;
  }

  bool asks() const override {
    return std::any_of(parts_.begin(), parts_.end(), [](const auto& part) { return part->asks(); });
  }

  bool has_rules() const override {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->has_rules(); });
  }

  bool shows_videos() const override {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->shows_videos(); });
  }

  std::vector<std::string> files() const override {
    std::vector<std::string> all;
    for (const auto& part : parts_) {
      for (std::string& file : part->files()) all.push_back(std::move(file));
    }
    return all;
  }

  void add_to(ListDigest& digest) const override {
    for (const auto& part : parts_) part->add_to(digest);
  }

  data::KindCounts left_out() const override { return left_out_; }

 private:
  std::pair<const EntrySource*, std::int64_t> find(std::int64_t index) const {
    const auto after = std::upper_bound(begins_.begin(), begins_.end(), index);
    const auto part = static_cast<std::size_t>(after - begins_.begin()) - 1;
    return {parts_[part].get(), index - begins_[part]};
  }

  std::vector<std::unique_ptr<EntrySource>> parts_;
  data::KindCounts left_out_;
  std::vector<std::int64_t> begins_;
  std::int64_t size_ = 0;
};

// Sorts arguments into sources; files that follow each other share one.
class Opener {
 public:
  Opener(std::istream& list, MediaKind kind, const RowOptions& rows)
      : list_(list), kind_(kind), rows_(rows) {}

  void add_argument(const std::string& path) {
    if (path == "-") return add_list();
    if (data::is_hub_data(path)) return add_rows(path);
    if (is_pattern(path)) {
      for (const std::string& match : expand_glob(path)) add_existing(match);
      return;
    }
    // What is there but can't be opened (a link in a circle, say) is an error of its own row.
    std::error_code code;
    if (fs::symlink_status(path, code).type() == fs::file_type::not_found) {
      throw Error({.what = "no such file or folder", .where = path});
    }
    add_existing(path);
  }

  std::unique_ptr<EntrySource> finish() {
    flush();
    check_ids_.check();
    const OrderedJson chosen = rows_.describe();
    if (!has_rows_ && !chosen.empty()) {
      throw Error({.what = "the input has no rows that it could be about",
                   .where = chosen.begin().key(),
                   .wanted = "data files, or a folder with metadata.jsonl or metadata.csv"});
    }
    if (links_ > 0) {
      log_warning(concat("links to folders aren't followed: ", links_,
                         " (they may lead in circles; name them to have them searched)"));
    }
    auto all = std::make_unique<Chain>(std::move(parts_), std::move(left_out_));
    data::warn_of_left_out(all->left_out(), "the input");
    return all;
  }

 private:
  void add_existing(const std::string& path) {
    if (is_folder(path)) return has_rows(path) ? add_rows(path) : add_folder(path);
    if (ends_with_any(path, {".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"})) {
      throw Error({.what = "the archive is compressed",
                   .where = path,
                   .wanted = "a plain .tar",
                   .hint = "pictures are compressed already; unpack it once, e.g. with gunzip"});
    }
    if (ends_with_any(path, {".zip", ".tsv", ".xlsx"})) {
      throw Error({.what = "unknown kind of input",
                   .where = path,
                   .wanted = concat(plural(), ", folders, data files or -")});
    }
    return data::has_rows_suffix(path) ? add_rows(path) : add_file({path});
  }

  // For videos folders are searched: a picture folder's metadata names pictures.
  bool has_rows(const std::string& folder) const {
    return kind_ == MediaKind::kPicture && data::is_rows_folder(folder);
  }

  void add_rows(const std::string& name) {
    flush();
    has_rows_ = true;
    for (const data::DataPath& file : data::find_data_files({.path = name,
                                      .split = rows_.split,
                                      .config_name = rows_.config_name,
                                      .revision = rows_.revision})) {
      parts_.push_back(open_row_entries(file.path.string(), file.name, rows_, check_ids_));
    }
  }

  // The paths of a list are not looked at now: a missing one is an error of its own row.
  void add_list() {
    std::string text{std::istreambuf_iterator<char>(list_), {}};
    text.erase(0, mark_size(text, "-"));
    const char end = text.find('\0') == std::string::npos ? '\n' : '\0';
    bool is_empty = true;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t stop = std::min(text.find(end, begin), text.size());
      std::string path = text.substr(begin, stop - begin);
      begin = stop + 1;
      if (end == '\n' && path.ends_with('\r')) path.pop_back();
      if (path.empty()) continue;
      is_empty = false;
      if (is_folder(path) || data::has_rows_suffix(path) || data::is_hub_data(path)) {
        add_argument(path);
      } else {
        add_file({path});
      }
    }
    if (is_empty) throw Error({.what = "no paths in the list", .where = "-"});
  }

  static bool is_folder(const std::string& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
  }

  void add_folder(const std::string& folder) {
    FolderSearch search = search_folder(folder, kind_);
    if (search.found.empty()) {
      const std::string other = data::to_text(search.left_out);
      throw Error({.what = concat("no ", plural(), " in the folder"),
                   .where = folder,
                   .got = other,
                   .hint = other.empty() ? "" : "these kinds can't be read"});
    }
    for (FoundPath& found : search.found) add_file(std::move(found));
    for (const auto& [suffix, count] : search.left_out) left_out_[suffix] += count;
    links_ += search.links;
  }

  const char* plural() const { return kind_ == MediaKind::kVideo ? "videos" : "pictures"; }

  // Each file once, however often it is named.
  void add_file(FoundPath found) {
    if (!seen_.insert(fs::path(found.path).lexically_normal().string()).second) return;
    if (!files_) files_ = std::make_unique<MediaFiles>(kind_);
    files_->add(std::move(found));
  }

  void flush() {
    if (files_) parts_.push_back(std::move(files_));
    files_ = nullptr;
  }

  std::istream& list_;
  const MediaKind kind_;
  const RowOptions& rows_;
  bool has_rows_ = false;
  std::unordered_set<std::string> seen_;
  std::unique_ptr<MediaFiles> files_;
  std::vector<std::unique_ptr<EntrySource>> parts_;
  data::KindCounts left_out_;
  std::int64_t links_ = 0;
  IdCheck check_ids_;
};

}  // namespace

OrderedJson RowOptions::describe() const {
  OrderedJson chosen = OrderedJson::object();
  const auto add = [&](const char* option, const std::string& value, const std::string& usual) {
    if (value != usual) chosen[option] = value;
  };
  add("--dataset-format", data.format, "auto");
  if (!data.field_map.empty()) chosen["--field-map"] = data.field_map;
  add("--image-folder", data.image_folder, "");
  if (id_column) chosen["--id-column"] = *id_column;
  add("--split", split, "");
  add("--config-name", config_name, "");
  add("--revision", revision, "");
  return chosen;
}

std::unique_ptr<EntrySource> open_entries(const std::vector<std::string>& arguments,
                                          std::istream& list, MediaKind kind,
                                          const RowOptions& rows) {
  Opener opener(list, kind, rows);
  for (const std::string& argument : arguments) opener.add_argument(argument);
  return opener.finish();
}

}  // namespace vlm::infer

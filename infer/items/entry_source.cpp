#include "infer/items/entry_source.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <istream>
#include <iterator>
#include <unordered_set>

#include "data/media/media.h"
#include "data/video/video_file.h"
#include "infer/items/jsonl_source.h"
#include "infer/items/tar_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

bool ends_with_any(const std::string& name, std::initializer_list<const char*> suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](const char* suffix) { return name.ends_with(suffix); });
}

bool is_pattern(const std::string& path) {
  return path.find_first_of("*?[") != std::string::npos && !fs::exists(path);
}

// Picture or video files, an entry each.
class MediaFiles : public EntrySource {
 public:
  explicit MediaFiles(MediaKind kind) : kind_(kind) {}

  void add(std::string path) { paths_.push_back(std::move(path)); }

  std::int64_t size() const override { return static_cast<std::int64_t>(paths_.size()); }

  Entry at(std::int64_t index) const override {
    const std::string& path = paths_.at(static_cast<std::size_t>(index));
    return {.id = path, .path = path, .media = {{.kind = kind_, .name = path}}};
  }

  void add_to(Digest& digest) const override {
    for (const std::string& path : paths_) digest.add(path);
  }

  bool shows_videos() const override { return kind_ == MediaKind::kVideo; }

 private:
  const MediaKind kind_;
  std::vector<std::string> paths_;
};

// Several sources in a row.
class Chain : public EntrySource {
 public:
  explicit Chain(std::vector<std::unique_ptr<EntrySource>> parts) : parts_(std::move(parts)) {
    for (const auto& part : parts_) {
      begins_.push_back(size_);
      size_ += part->size();
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

  bool shows_videos() const override {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->shows_videos(); });
  }

  void add_to(Digest& digest) const override {
    for (const auto& part : parts_) part->add_to(digest);
  }

 private:
  std::pair<const EntrySource*, std::int64_t> find(std::int64_t index) const {
    const auto after = std::upper_bound(begins_.begin(), begins_.end(), index);
    const auto part = static_cast<std::size_t>(after - begins_.begin()) - 1;
    return {parts_[part].get(), index - begins_[part]};
  }

  std::vector<std::unique_ptr<EntrySource>> parts_;
  std::vector<std::int64_t> begins_;
  std::int64_t size_ = 0;
};

// Sorts arguments into sources; files that follow each other share one.
class Opener {
 public:
  Opener(std::istream& list, MediaKind kind) : list_(list), kind_(kind) {}

  void add_argument(const std::string& path) {
    if (path == "-") return add_list();
    if (is_pattern(path)) {
      for (const std::string& match : expand_glob(path)) add_existing(match);
      return;
    }
    if (!fs::exists(path)) throw Error({.what = "no such file or folder", .where = path});
    add_existing(path);
  }

  std::unique_ptr<EntrySource> finish() {
    flush();
    check_ids_.check();
    return parts_.size() == 1 ? std::move(parts_[0]) : std::make_unique<Chain>(std::move(parts_));
  }

 private:
  void add_existing(const std::string& path) {
    if (fs::is_directory(path)) return add_folder(path);
    if (ends_with_any(path, {".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"})) {
      throw Error({.what = "the archive is compressed",
                   .where = path,
                   .wanted = "a plain .tar",
                   .hint = "pictures are compressed already; unpack it once, e.g. with gunzip"});
    }
    if (ends_with_any(path, {".csv", ".json", ".parquet", ".zip"})) {
      throw Error({.what = "unknown kind of input",
                   .where = path,
                   .wanted = concat(plural(), ", folders, .jsonl, .tar or -")});
    }
    const bool is_jsonl = ends_with_any(path, {".jsonl", ".ndjson"});
    if (!is_jsonl && !path.ends_with(".tar")) return add_file(path);
    flush();
    parts_.push_back(is_jsonl ? open_jsonl_source(path, check_ids_)
                              : open_tar_source(path, check_ids_));
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
      if (fs::is_directory(path) || ends_with_any(path, {".jsonl", ".ndjson", ".tar"})) {
        add_argument(path);
      } else {
        add_file(path);
      }
    }
    if (is_empty) throw Error({.what = "no paths in the list", .where = "-"});
  }

  void add_folder(const std::string& folder) {
    std::vector<std::string> inside;
    const auto skip = fs::directory_options::skip_permission_denied;
    for (const auto& entry : fs::recursive_directory_iterator(folder, skip)) {
      if (has_suffix(entry.path()) && entry.is_regular_file()) {
        inside.push_back(entry.path().string());
      }
    }
    if (inside.empty()) {
      throw Error({.what = concat("no ", plural(), " in the folder"), .where = folder});
    }
    std::sort(inside.begin(), inside.end());
    for (const std::string& path : inside) add_file(path);
  }

  const char* plural() const { return kind_ == MediaKind::kVideo ? "videos" : "pictures"; }

  bool has_suffix(const fs::path& path) const {
    return kind_ == MediaKind::kVideo ? data::has_video_suffix(path) : data::has_image_suffix(path);
  }

  // Each file once, however often it is named.
  void add_file(const std::string& path) {
    if (!seen_.insert(fs::path(path).lexically_normal().string()).second) return;
    if (!files_) files_ = std::make_unique<MediaFiles>(kind_);
    files_->add(path);
  }

  void flush() {
    if (files_) parts_.push_back(std::move(files_));
    files_ = nullptr;
  }

  std::istream& list_;
  const MediaKind kind_;
  std::unordered_set<std::string> seen_;
  std::unique_ptr<MediaFiles> files_;
  std::vector<std::unique_ptr<EntrySource>> parts_;
  IdCheck check_ids_;
};

// Matches the parts of a pattern from `index` on below `folder`.
class GlobSearch {
 public:
  explicit GlobSearch(const fs::path& pattern) : parts_(pattern.begin(), pattern.end()) {}

  std::vector<std::string> run() {
    match("", 0);
    std::sort(found_.begin(), found_.end());
    found_.erase(std::unique(found_.begin(), found_.end()), found_.end());
    return std::move(found_);
  }

 private:
  void match(const fs::path& folder, std::size_t index) {
    if (index == parts_.size()) {
      found_.push_back(folder.string());
      return;
    }
    const std::string part = parts_[index].string();
    if (part.find_first_of("*?[") == std::string::npos) {
      if (fs::exists(folder / part)) match(folder / part, index + 1);
      return;
    }
    const bool crosses = part == "**";
    if (crosses && index + 1 < parts_.size()) match(folder, index + 1);
    std::error_code ignored;  // a folder that can't be read matches nothing
    for (const auto& entry :
         fs::directory_iterator(folder.empty() ? fs::path(".") : folder, ignored)) {
      const std::string name = entry.path().filename().string();
      // FNM_PERIOD: hidden files are matched only by patterns that begin with a dot, as in a shell.
      if (::fnmatch(crosses ? "*" : part.c_str(), name.c_str(), FNM_PERIOD) != 0) continue;
      const bool is_link = entry.is_symlink(ignored);  // "**" doesn't follow links: they may circle
      if (crosses && entry.is_directory(ignored)) {
        if (!is_link) match(folder / name, index);
      } else if (crosses ? index + 1 == parts_.size() : true) {
        match(folder / name, index + 1);
      }
    }
  }

  std::vector<fs::path> parts_;
  std::vector<std::string> found_;
};

}  // namespace

std::vector<std::string> expand_glob(const std::string& pattern) {
  auto found = GlobSearch(pattern).run();
  if (found.empty()) throw Error({.what = "nothing matches the pattern", .where = pattern});
  return found;
}

std::unique_ptr<EntrySource> open_entries(const std::vector<std::string>& arguments,
                                          std::istream& list, MediaKind kind) {
  Opener opener(list, kind);
  for (const std::string& argument : arguments) opener.add_argument(argument);
  return opener.finish();
}

}  // namespace vlm::infer

#include "infer/items/path_search.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>

#include "data/media/media.h"
#include "data/video/video_file.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

std::string to_error(const fs::path& path, const char* what, const std::error_code& code) {
  return Error({.what = what, .where = path.string(), .got = code.message()}).what();
}

class Searcher {
 public:
  explicit Searcher(MediaKind kind) : kind_(kind) {}

  FolderSearch run(const fs::path& folder) {
    waiting_.push_back(folder);
    while (!waiting_.empty()) {
      const fs::path next = std::move(waiting_.back());
      waiting_.pop_back();
      read_folder(next);
    }
    std::sort(result_.found.begin(), result_.found.end(),
              [](const FoundPath& a, const FoundPath& b) { return a.path < b.path; });
    return std::move(result_);
  }

 private:
  void read_folder(const fs::path& folder) {
    std::error_code code;
    fs::directory_iterator entries(folder, code);
    while (!code && entries != fs::directory_iterator()) {
      if (!data::is_side_name(entries->path().filename().string())) add(*entries);
      entries.increment(code);
    }
    if (code) {
      result_.found.push_back({folder.string(), to_error(folder, "can't read the folder", code)});
    }
  }

  void add(const fs::directory_entry& entry) {
    std::error_code code, ignored;
    const fs::path& path = entry.path();
    const fs::file_type type = entry.status(code).type();  // of what a link leads to
    const bool is_link = entry.is_symlink(ignored);
    if (type == fs::file_type::directory && !is_link) return waiting_.push_back(path);
    if (type == fs::file_type::directory) {
      ++result_.links;
    } else if (const std::string suffix = unreadable_suffix(path); !suffix.empty()) {
      ++result_.left_out[suffix];
    } else if (has_suffix(path)) {
      result_.found.push_back({path.string(), error_of(path, type, code)});
    } else if (is_link && code) {  // in a circle, or into a locked folder: who knows what it names
      result_.found.push_back({path.string(), to_error(path, "can't follow the link", code)});
    }
  }

  static std::string error_of(const fs::path& path, fs::file_type type,
                              const std::error_code& code) {
    if (type == fs::file_type::regular) return "";
    if (type == fs::file_type::not_found) {
      return Error({.what = "the link leads nowhere", .where = path.string()}).what();
    }
    if (code) return to_error(path, "can't open the file", code);
    return Error({.what = "is not a file", .where = path.string()}).what();
  }

  bool has_suffix(const fs::path& path) const {
    return kind_ == MediaKind::kVideo ? data::has_video_suffix(path) : data::has_image_suffix(path);
  }

  // Pictures among videos aren't missed.
  std::string unreadable_suffix(const fs::path& path) const {
    return kind_ == MediaKind::kVideo ? "" : data::unreadable_suffix(path);
  }

  const MediaKind kind_;
  std::vector<fs::path> waiting_;
  FolderSearch result_;
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
    if (part.find_first_of("*?[") != std::string::npos) return match_inside(folder, index);
    std::error_code code;
    // A link that leads nowhere is there, as in a shell.
    const fs::file_type type = fs::symlink_status(folder / part, code).type();
    if (type == fs::file_type::none) {
      keep_locked(folder, code);
    } else if (type != fs::file_type::not_found) {
      match(folder / part, index + 1);
    }
  }

  void match_inside(const fs::path& folder, std::size_t index) {
    const std::string part = parts_[index].string();
    const bool crosses = part == "**";
    if (crosses && index + 1 < parts_.size()) match(folder, index + 1);
    std::error_code code;
    fs::directory_iterator entries(folder.empty() ? fs::path(".") : folder, code);
    for (; !code && entries != fs::directory_iterator(); entries.increment(code)) {
      const std::string name = entries->path().filename().string();
      // FNM_PERIOD: hidden files are matched only by patterns that begin with a dot, as in a shell.
      if (::fnmatch(crosses ? "*" : part.c_str(), name.c_str(), FNM_PERIOD) != 0) continue;
      if (crosses && data::is_side_name(name)) continue;
      std::error_code ignored;
      const bool is_link =
          entries->is_symlink(ignored);  // "**" doesn't follow links: they may circle
      if (crosses && entries->is_directory(ignored)) {
        if (!is_link) match(folder / name, index);
      } else if (crosses ? index + 1 == parts_.size() : true) {
        match(folder / name, index + 1);
      }
    }
    keep_locked(folder, code);
  }

  // What can't be looked into is found itself: who opens it is told why.
  void keep_locked(const fs::path& folder, const std::error_code& code) {
    const bool is_locked = code == std::errc::permission_denied || code == std::errc::io_error ||
                           code == std::errc::too_many_symbolic_link_levels;
    if (is_locked) found_.push_back(folder.empty() ? "." : folder.string());
  }

  std::vector<fs::path> parts_;
  std::vector<std::string> found_;
};

}  // namespace

FolderSearch search_folder(const std::string& folder, MediaKind kind) {
  return Searcher(kind).run(folder);
}

std::vector<std::string> expand_glob(const std::string& pattern) {
  auto found = GlobSearch(pattern).run();
  if (found.empty()) throw Error({.what = "nothing matches the pattern", .where = pattern});
  return found;
}

}  // namespace vlm::infer

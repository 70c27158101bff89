// Folders and patterns → paths of pictures or videos, sorted.
//
// A path that can't be used (a folder without permission, a broken or circular link, a device) does
// not throw: it is in the result with an error. Skipped inside a folder: hidden names, files that
// operating systems and editors leave behind (data/media/file_kinds.h), and links to folders, which
// may be circular.
#pragma once

#include <string>
#include <vector>

#include "data/media/file_kinds.h"
#include "infer/items/item.h"

namespace vlm::infer {

struct FoundPath {
  std::string path;
  std::string error = {};  // why it can't be opened; empty: no problem is known
};

struct FolderSearch {
  std::vector<FoundPath> found;  // sorted by path
  data::KindCounts left_out;     // pictures of kinds that can't be read
  std::int64_t links = 0;        // to folders, not followed
};

// All files in the folder and its subfolders with a name that ends like a picture's or a video's.
FolderSearch search_folder(const std::string& folder, MediaKind kind);

// Files and folders that match, sorted. "*" and "?" don't match "/"; "**" as a whole part of the
// pattern matches any number of folders. A folder that can't be searched is in the result, too.
// Throws Error when nothing matches.
std::vector<std::string> expand_glob(const std::string& pattern);

}  // namespace vlm::infer

// Folders and globs → paths of media, in order, with what is wrong with some of them.
//
// Never throws for a single odd path: a folder that can't be read, a link that leads nowhere or in
// a circle and a name that is no file are found with an error of their own. Hidden names and what
// operating systems and editors leave (data/media/file_kinds.h) are passed over below the folder
// that was named, and so are links to folders, which may lead in circles.
#pragma once

#include <string>
#include <vector>

#include "data/media/file_kinds.h"
#include "infer/items/item.h"

namespace vlm::infer {

struct FoundPath {
  std::string path;
  std::string error = {};  // why it can't be opened; empty: nothing is known against it
};

struct FolderSearch {
  std::vector<FoundPath> found;  // sorted by path
  data::KindCounts left_out;     // pictures of kinds that can't be read
  std::int64_t links = 0;        // to folders, not followed
};

// Everything below the folder whose name ends like a picture's or a video's.
FolderSearch search_folder(const std::string& folder, MediaKind kind);

// Files and folders that match, sorted. "*" and "?" don't cross a "/", "**" as a whole part of the
// pattern stands for any number of folders. A folder on the way that can't be read is among them.
// Throws Error when there are none.
std::vector<std::string> expand_glob(const std::string& pattern);

}  // namespace vlm::infer

// Entries of arguments of a command line.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "infer/items/entry_source.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"

namespace vlm::infer {

using Names = std::vector<std::string>;

inline std::unique_ptr<EntrySource> open_arguments(const Names& arguments,
                                                   const std::string& list = "",
                                                   const RowOptions& rows = {}) {
  std::istringstream in(list);
  return open_entries(arguments, in, MediaKind::kPicture, rows);
}

inline Names ids_of(const EntrySource& source, const std::filesystem::path& folder = {}) {
  Names ids;
  for (std::int64_t i = 0; i < source.size(); ++i) {
    const std::string id = source.at(i).id;
    ids.push_back(folder.empty() ? id
                                 : std::filesystem::path(id).lexically_relative(folder).string());
  }
  return ids;
}

// Of a JSONL file with this row alone.
inline std::string error_of(const std::string& row) {
  const ScratchFolder folder;
  return open_arguments({folder.write("b.jsonl", row + "\n")})->at(0).error;
}

}  // namespace vlm::infer

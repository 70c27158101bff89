// Which files of a data set's repository belong to a config and a split.
//
//   card's YAML header (configs, data_files), names of the listing ─► choose_data_files ─► names
//
// The header goes first; without one the names tell, as the `datasets` library reads them:
// "data/train-00000-of-00002.parquet", folders and files called train, validation or test; where no
// name says a split, everything is train. Reference: datasets 5.2, data_files.py.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vlm {

inline constexpr const char* kDatasetCard = "README.md";

struct DatasetChoice {
  std::string config;           // empty: the default one, or the only one
  std::string split = "train";  // "all": every split
  std::string files;            // a name or pattern; then config and split don't count
};

// Sorted names. `card` is the text of README.md, "" without one. Throws Error naming `where`: a
// config or split that isn't there (the error lists those that are), a header that isn't YAML, or
// no file of a kind that is read.
std::vector<std::string> choose_data_files(const std::string& card,
                                           const std::vector<std::string>& listed,
                                           const DatasetChoice& choice, const std::string& where);

// Whether a path matches a pattern of shells: *, ? and […] stay within a folder, ** crosses them.
bool matches_glob(std::string_view path, std::string_view pattern);

}  // namespace vlm

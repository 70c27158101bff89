// Names of data → the files that are read.
//
//   "a.jsonl", "shards/*.parquet", "hf://datasets/org/name" ─► find_data_files ─► paths, sorted
//
// A pattern (*, ?, […], ** across folders) stands for every file that it matches. A data set of the
// Hugging Face hub is found in the cache or pulled into it (vlm/io/hub/hub_pull.h); its card, or
// else the names of its files, say which files belong to a config and a split
// (vlm/io/hub/dataset_card.h). A revision and a file or pattern may follow its name:
// "hf://datasets/org/name@v1/data/train-*.parquet".
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace vlm::data {

struct DataName {
  std::string path;
  // For data sets of the hub only. Empty: split train, the default config, revision main.
  std::string split = {}, config_name = {}, revision = {};
};

struct DataPath {
  std::filesystem::path path;
  std::string name;  // for messages; of a hub's file "hf://datasets/org/name/data/x.parquet"
};

bool is_hub_data(const std::string& path);

// Throws Error for a pattern without a match, for a data set, split or config that doesn't exist,
// and when split, config_name or revision are set for a path or pattern. A path needn't exist.
std::vector<DataPath> find_data_files(const DataName& name);

}  // namespace vlm::data

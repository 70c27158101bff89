// Names of data → the files that are read.
//
//   "a.jsonl", "shards/*.parquet", "hf://datasets/org/name" ─► find_data_files ─► paths, sorted
//
// A pattern (*, ?, […], ** over folders) stands for every file that it matches. A data set of the
// Hugging Face hub is found in the cache or pulled into it; its card, or the names of its files,
// say which of them belong to a config and a split (vlm/io/hub/dataset_card.h). Behind its name may
// stand a revision and a file or pattern: "hf://datasets/org/name@v1/data/train-*.parquet".
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace vlm::data {

struct DataName {
  std::string path;
  // Of a data set of the hub; refused elsewhere. Empty: train, the default config, main.
  std::string split = {}, config_name = {}, revision = {};
};

struct DataPath {
  std::filesystem::path path;
  std::string name;  // as users call it: of a hub's file "hf://datasets/org/name/data/x.parquet"
};

bool is_hub_data(const std::string& path);

// Throws Error for a pattern that matches nothing, a data set, split or config that isn't there,
// and for split, config_name or revision of a plain path. A plain path needn't exist.
std::vector<DataPath> find_data_files(const DataName& name);

}  // namespace vlm::data

// Files → samples, by index.
//
//   "train.jsonl", "hf://datasets/org/name", {"path": "b.json", "weight": 2} ─► load_datasets ─►
//   Dataset: size(), at(i)
//
// Files are JSONL, JSON lists, CSV, tar shards (WebDataset) and picture folders with metadata.jsonl
// or metadata.csv (formats/row_source.h); their rows are conversations in one of the formats of
// conversations/row_format.h, told apart by their columns unless named. Opening a file indexes it;
// rows are parsed when asked for, so memory holds the index and no text. Every error names file and
// line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/conversations/data_options.h"
#include "data/conversations/sample.h"
#include "data/formats/row_block.h"
#include "vlm/core/json.h"

namespace vlm::data {

class RowSource;

struct DataFile {
  std::string path;   // a pattern and a data set of the hub stand for several (expand_data_file)
  double weight = 1;  // times that its samples are taken in an epoch
  DataOptions options = {};
  std::string split = {}, config_name = {}, revision = {};  // of a data set of the hub
};

// A run of neighbouring samples, and how often an epoch takes them.
struct DatasetPart {
  std::int64_t samples = 0;
  double weight = 1;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. Throws Error for a malformed entry.
  virtual Sample at(std::int64_t index) const = 0;
  // The place of an entry, also of one that `at` throws for: "train.jsonl:12".
  virtual std::string where(std::int64_t index) const = 0;
  virtual std::vector<DatasetPart> parts() const { return {{.samples = size()}}; }
  // Neighbouring samples that are read as a whole, in order; empty where none are.
  virtual std::vector<RowBlock> blocks() const { return {}; }
};

// Entries are paths, or objects with "path" and optional "weight", "dataset_format", "field_map",
// "text_column", "prompt" and "image_folder", which replace `defaults`; "split", "config_name" and
// "revision" for data sets of the hub. Throws Error naming the entry; opens nothing.
std::vector<DataFile> parse_data_files(const Json& files, const DataOptions& defaults,
                                       const std::string& where);

// The files that an entry stands for, with its options (formats/data_files.h): one for a plain
// path.
std::vector<DataFile> expand_data_file(const DataFile& file);

// {"query": "question", …} with the names of column_names() for keys; null for a column that is
// left out. Throws Error naming the key.
std::map<std::string, std::string> parse_field_map(const Json& map, const std::string& where);

// Throws Error for a malformed row.
Sample read_sample(const RowSource& rows, std::int64_t index, const DataOptions& options);

// The rows of one file or folder. Throws Error when it doesn't exist, is empty, or its kind is
// unknown.
std::unique_ptr<RowSource> open_samples(const std::filesystem::path& path);

// One file or folder. Throws Error when it doesn't exist, is empty, or its kind is unknown.
std::unique_ptr<Dataset> load_dataset(const std::filesystem::path& path,
                                      const DataOptions& options);

// Several in a row: entries of parse_data_files, or plain paths.
std::unique_ptr<Dataset> load_datasets(const Json& files, const DataOptions& options);

}  // namespace vlm::data

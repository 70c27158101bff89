// Files → samples, by index.
//
//   "train.jsonl", "hf://datasets/org/name", {"path": "b.json", "weight": 2} ─► load_datasets ─►
//   Dataset: size(), at(i)
//
// Files are JSONL, JSON lists, CSV, Parquet, Arrow, tar shards (WebDataset) and picture folders
// with metadata.jsonl or metadata.csv (formats/row_source.h). Their rows have one of the layouts of
// conversations/row_format.h; which one is told by the columns, or by dataset_format. Opening a
// file makes an index; a row is parsed when it is asked for, so memory holds the index and no text.
// Every error names file and line.
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
  std::string path;   // also a pattern or a data set of the hub (expand_data_file)
  double weight = 1;  // how often an epoch has each of its samples
  DataOptions options = {};
  std::string split = {}, config_name = {}, revision = {};  // of a data set of the hub
};

// Samples that follow each other, and how often an epoch has each of them.
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
  // The place of a sample, also of one that can't be read: "train.jsonl:12".
  virtual std::string where(std::int64_t index) const = 0;
  virtual std::vector<DatasetPart> parts() const { return {{.samples = size()}}; }
  // Groups of samples that are read from the file together, in order; empty when each sample is
  // read by itself.
  virtual std::vector<RowBlock> blocks() const { return {}; }
};

// `files` is the value of train_files: a list of paths, or of objects with "path" and optionally
// "weight", "dataset_format", "field_map", "text_column", "prompt" and "image_folder", which
// replace `defaults`, and for data sets of the hub "split", "config_name" and "revision". Opens no
// file. Throws Error naming the entry.
std::vector<DataFile> parse_data_files(const Json& files, const DataOptions& defaults,
                                       const std::string& where);

// The files that a pattern or a data set of the hub stands for (formats/data_files.h), each with
// the options of `file`; for a plain path one.
std::vector<DataFile> expand_data_file(const DataFile& file);

// {"query": "question", …}: the keys are column_names(), the values columns of the file; null
// leaves a column out. Throws Error naming the key.
std::map<std::string, std::string> parse_field_map(const Json& map, const std::string& where);

// Throws Error for a malformed row.
Sample read_sample(const RowSource& rows, std::int64_t index, const DataOptions& options);

// The rows of one file or folder. Throws Error when it doesn't exist, is empty, or its kind is
// unknown.
std::unique_ptr<RowSource> open_samples(const std::filesystem::path& path);

// One file or folder. Throws Error when it doesn't exist, is empty, or its kind is unknown.
std::unique_ptr<Dataset> load_dataset(const std::filesystem::path& path,
                                      const DataOptions& options);

// Several files as one data set, one after the other. `files`: see parse_data_files.
std::unique_ptr<Dataset> load_datasets(const Json& files, const DataOptions& options);

}  // namespace vlm::data

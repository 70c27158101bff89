// Files → samples: JSONL of Hugging Face messages, and picture folders with metadata.jsonl or
// metadata.csv.
//
// A JSONL line is {"messages": [{"role": …, "content": text or parts}], "images": [paths],
// "videos": [paths]}; parts are {"type": "text", "text": …}, {"type": "image"} (which takes the
// next of "images") or {"type": "image", "path": …}, and the same with "video". Content that is
// plain text in a line with images or videos puts their parts before the first user turn's text, as
// TRL does. A folder's metadata row has "file_name" and a text column; it becomes one turn: the
// picture and FolderOptions::prompt, answered by the text. Paths are relative to the file they
// stand in. Every error names file and line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/sample.h"

namespace vlm::data {

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. Throws Error for a malformed entry.
  virtual Sample at(std::int64_t index) const = 0;
};

struct FolderOptions {
  std::string text_column = "text";
  std::string prompt = "Describe the image.";
};

// One file or folder. Throws Error when it doesn't exist, is empty, or its kind is unknown.
std::unique_ptr<Dataset> load_dataset(const std::filesystem::path& path,
                                      const FolderOptions& options);

// Several in a row.
std::unique_ptr<Dataset> load_datasets(const std::vector<std::string>& paths,
                                       const FolderOptions& options);

}  // namespace vlm::data

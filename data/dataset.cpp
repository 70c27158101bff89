#include "data/dataset.h"

#include <algorithm>

#include "data/folder_dataset.h"
#include "data/jsonl_dataset.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

class JoinedDataset : public Dataset {
 public:
  explicit JoinedDataset(std::vector<std::unique_ptr<Dataset>> parts) : parts_(std::move(parts)) {
    for (const auto& part : parts_) {
      size_ += part->size();
      ends_.push_back(size_);
    }
  }

  std::int64_t size() const override { return size_; }

  Sample at(std::int64_t index) const override {
    const auto part = std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin();
    const std::int64_t before = part > 0 ? ends_[static_cast<std::size_t>(part) - 1] : 0;
    return parts_.at(static_cast<std::size_t>(part))->at(index - before);
  }

 private:
  std::vector<std::unique_ptr<Dataset>> parts_;
  std::vector<std::int64_t> ends_;  // running totals
  std::int64_t size_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> load_dataset(const fs::path& path, const FolderOptions& options) {
  if (!fs::exists(path)) throw Error({.what = "no such file or folder", .where = path.string()});
  std::unique_ptr<Dataset> dataset;
  if (fs::is_directory(path)) {
    dataset = load_folder_dataset(path, options);
  } else if (path.extension() == ".jsonl") {
    dataset = load_jsonl_dataset(path);
  } else {
    throw Error({.what = "unknown kind of data file",
                 .where = path.string(),
                 .wanted = "a .jsonl file, or a folder with metadata.jsonl or metadata.csv"});
  }
  if (dataset->size() == 0) throw Error({.what = "holds no samples", .where = path.string()});
  return dataset;
}

std::unique_ptr<Dataset> load_datasets(const std::vector<std::string>& paths,
                                       const FolderOptions& options) {
  std::vector<std::unique_ptr<Dataset>> parts;
  for (const std::string& path : paths) parts.push_back(load_dataset(path, options));
  return std::make_unique<JoinedDataset>(std::move(parts));
}

}  // namespace vlm::data

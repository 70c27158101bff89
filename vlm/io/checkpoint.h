// Weights of a checkpoint folder in Hugging Face layout, in one file or in shards: loaded into a
// model, saved from one.
//
//   folder ─► Checkpoint ─► load_weights ─► the model's parameters, all filled      parameters ─►
//   save_weights ─► folder
//
// Loading is strict: every key of the files is used or ignorable, every parameter is filled, every
// shape agrees; otherwise one Error lists the first ten of each. The files are model.safetensors,
// or the shards that model.safetensors.index.json names. Parameters take the mapped memory itself
// where dtype and device allow.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "vlm/io/safetensors.h"

namespace vlm {

// Tensors by their keys, wherever they lie: what a model is loaded from.
class TensorSource {
 public:
  TensorSource() = default;
  virtual ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;

  // What errors name.
  virtual const std::filesystem::path& place() const = 0;
  // The files that were opened.
  virtual std::vector<std::filesystem::path> paths() const = 0;
  virtual std::vector<std::string> keys() const = 0;
  // Dtype and shape of tensor(key). Throws Error for a key that is not there.
  virtual const TensorEntry& entry(const std::string& key) const = 0;
  // Sharing the mapped file, or in memory of its own where is_decoded says so.
  virtual at::Tensor tensor(const std::string& key) const = 0;
  virtual bool is_decoded(const std::string& /*key*/) const { return false; }
  // How the file holds it: "F32", "Q4_0", …
  virtual std::string stored_as(const std::string& key) const {
    return dtype_text(entry(key).dtype);
  }
};

class Checkpoint : public TensorSource {
 public:
  // Opens the folder's weights. Throws Error for a missing shard, an index that doesn't fit, or a
  // bad file.
  explicit Checkpoint(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const std::filesystem::path& place() const override { return folder_; }
  // What was opened: the one file, or the index and its shards.
  std::vector<std::filesystem::path> paths() const override;
  std::vector<std::string> keys() const override;
  const TensorEntry& entry(const std::string& key) const override;
  at::Tensor tensor(const std::string& key) const override;
  bool contains(const std::string& key) const { return file_of_.count(key) > 0; }

 private:
  void open_sharded(const std::filesystem::path& index);

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> file_of_;
};

struct LoadRules {
  // A file's key → the model's name for it (older prefixes); the same string when there is nothing
  // to change.
  std::function<std::string(const std::string&)> rename;
  // True for a renamed key that the model does not need (a leftover buffer).
  std::function<bool(const std::string&)> is_ignorable;
  // Parameter → the parameter whose weights it takes when the files don't hold it (a tied head).
  std::map<std::string, std::string> tied;
  at::ScalarType dtype = at::kFloat;
  // Parameters that stay as they are stored when that is bfloat16.
  std::set<std::string> kept_bfloat16;
  // Parameters that become bfloat16 whatever they are stored as.
  std::set<std::string> narrowed;
  // Quantizes a parameter: stores `value` (mapped, on the CPU) in the model and returns true;
  // false: the parameter is filled as usual. The memory of a value is given back before the next
  // one is read, so that only one is in memory at a time.
  std::function<bool(const std::string& name, const at::Tensor& value)> store_quantized;
  // Stores a parameter in the model as the files hold it in few bits, without making numbers of it,
  // and returns true; false: store_quantized is asked next.
  std::function<bool(const std::string& name, const std::string& key)> store_codes;
  at::Device device = at::kCPU;
};

// Fills `parameters` (name → parameter of the model) from the source, converted to rules.dtype on
// rules.device.
void load_weights(const NamedTensors& parameters, const TensorSource& source,
                  const LoadRules& rules);

// True for the name of a file that holds a model's weights, or an index of them, in any format that
// transformers loads. Such a file of an older model, left beside new weights, would be loaded in
// their place or mixed with them.
bool is_weights_file(const std::filesystem::path& path);

// Writes model.safetensors, or shards of at most `max_shard_bytes` with their index. Other weights
// of the safetensors format that lie in the folder are removed: one that is loaded later would mix
// both.
void save_weights(const std::filesystem::path& folder, const NamedTensors& parameters,
                  std::uint64_t max_shard_bytes = 5'000'000'000ULL);

}  // namespace vlm

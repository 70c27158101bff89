// A checkpoint whose linear layers are stored in 4 or 8 bits by other programs, or by `vlm
// quantize`, under the keys of an unpacked one.
//
//   model.safetensors + quantization_config of config.json ─► PackedCheckpoint ─► key → numbers, or
//   what multiplies without making numbers of it
//
// compressed-tensors (pack-quantized 4 bits, int-quantized 8 bits, mixed-precision), GPTQ and AWQ
// of 4 bits, bitsandbytes NF4. Symmetric groups of 32 inputs, or a multiple, keep their codes;
// others become 8 bits with a scale a row in models that are only run.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/models/packed/packed_groups.h"
#include "vlm/models/parts/coded_tensors.h"

namespace vlm {

// Whether config.json says that weights are packed.
bool is_packed(const Json& config);

class PackedCheckpoint : public CodedTensors {
 public:
  // Throws Error as Checkpoint, and for a method that isn't read, naming it.
  PackedCheckpoint(const std::filesystem::path& folder, const Json& config);

  const std::filesystem::path& place() const override { return files_.place(); }
  std::vector<std::filesystem::path> paths() const override { return files_.paths(); }
  std::vector<std::string> keys() const override;
  const TensorEntry& entry(const std::string& key) const override;
  at::Tensor tensor(const std::string& key) const override;
  bool is_decoded(const std::string& key) const override { return packed_.count(key) > 0; }
  std::string stored_as(const std::string& key) const override;
  std::string format(const std::string& key) const override;
  std::shared_ptr<const StoredWeight> stored(const std::string& key) const override;

 private:
  // A linear layer's weight: groups of 4 bits, which are opened when they are asked for, or rows of
  // 8 bits.
  struct Packed {
    std::string base;  // what its tensors' names begin with
    std::string format;
    at::Tensor codes, scales;  // of rows: int8 [out, in], [out, 1 or groups]
    TensorEntry entry;

    bool has_groups() const { return !codes.defined(); }
  };

  void add_packed(const std::string& base);
  void add_rows(const std::string& base);
  const Packed* find(const std::string& key) const;
  // Gives the memory of a layer's codes back, which the file still has.
  void release(const Packed& packed) const;

  Checkpoint files_;
  PackedKind kind_;
  std::map<std::string, Packed> packed_;
  std::vector<std::string> plain_;  // the other keys
};

}  // namespace vlm

// GGUF files: read by memory map, written atomically.
//
//   file ─► GgufFile ─► name → bytes or float32 of a tensor
//   keys, tensors ─► save_gguf ─► file
//
// The layout is in gguf_header.h, the types of tensors are in gguf_types.h. A model in several
// files (gguf_parts.h) is one GgufFile, opened by its first; the others lie beside it.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vlm/io/gguf/gguf_header.h"

namespace vlm {

class GgufFile {
 public:
  // Maps the file, and the other parts of its model, and reads their headers. Throws Error naming
  // the file and what is wrong with it.
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return paths_[0]; }
  // All parts, the first in front.
  const std::vector<std::filesystem::path>& paths() const { return paths_; }
  const GgufHeader& header() const { return header_; }
  const GgufTensor& tensor(const std::string& name) const;

  // The tensor's blocks in the mapped file, [rows, bytes of a row] uint8; a vector is one row.
  at::Tensor blocks(const std::string& name) const;
  // In float32, or F16 and BF16 as they are: sharing the mapping where they are aligned in it.
  at::Tensor values(const std::string& name) const;

 private:
  struct Mapping;
  GgufHeader map(const std::filesystem::path& path);
  void add_parts(std::int64_t count);

  std::vector<std::filesystem::path> paths_;
  std::vector<std::shared_ptr<Mapping>> mappings_;
  GgufHeader header_;  // the first part's keys, and the tensors of all
};

// True for a path that ends in ".gguf".
bool is_gguf(const std::filesystem::path& path);

// A tensor to write: its blocks, of any shape, as bytes in a row.
struct GgufOutput {
  std::string name;
  GgufType type;
  std::vector<std::int64_t> shape;
  at::Tensor blocks;  // uint8
};

// Writes keys and tensors in the order given, and replaces `path` durably. Names are at most 63
// bytes long, as llama.cpp demands it.
void save_gguf(const std::filesystem::path& path,
               const std::vector<std::pair<std::string, GgufValue>>& values,
               const std::vector<GgufOutput>& tensors);

// Dense numbers in that type, which is F32, F16 or BF16.
GgufOutput gguf_dense(const std::string& name, const at::Tensor& values, GgufType type);

}  // namespace vlm

// GGUF files: read by memory map, written atomically.
//
//   file ─► GgufFile ─► name → bytes or float32 of a tensor
//   keys, tensors ─► save_gguf ─► file
//
// The layout is in gguf_header.h, the types of tensors are in gguf_types.h.
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
  // Maps the file and reads its header. Throws Error naming the file and what is wrong with it.
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const GgufHeader& header() const { return header_; }
  const GgufTensor& tensor(const std::string& name) const;

  // The tensor's blocks in the mapped file, [rows, bytes of a row] uint8; a vector is one row.
  at::Tensor blocks(const std::string& name) const;
  // In float32, or F16 and BF16 as they are: sharing the mapping where they are aligned in it.
  at::Tensor values(const std::string& name) const;

 private:
  struct Mapping;
  std::filesystem::path path_;
  std::shared_ptr<Mapping> mapping_;
  GgufHeader header_;
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

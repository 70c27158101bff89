// Tensors in safetensors files: read by memory map, written atomically.
//
//   file ─► SafetensorsFile ─► name → at::Tensor that shares the mapping      named tensors ─►
//   save_safetensors ─► file
//
// A malformed file is refused before memory is allocated for it: a header length past the end,
// offsets that overlap, leave a gap or leave the file, a size that doesn't fit dtype × shape,
// absurd shapes, keys given twice. Nothing is ever unpickled. Format: 8 bytes little-endian header
// length, JSON header, raw little-endian data.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vlm {

// Where one tensor lies. Offsets count from the first byte after the header.
struct TensorEntry {
  at::ScalarType dtype = at::ScalarType::Float;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Checks and parses the JSON part. `data_bytes` is the size of what follows it; `where` names the
// file in errors.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes,
                                           const std::string& where);

class SafetensorsFile {
 public:
  // Maps the file and reads its header. Throws Error naming the file and what is wrong with it.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, TensorEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::filesystem::path& path() const { return path_; }

  // The tensor, sharing the private mapping (writing to it changes memory only); the mapping lives
  // as long as any of its tensors. Throws Error for a name that is not there.
  at::Tensor tensor(const std::string& name) const;

 private:
  struct Mapping;
  std::filesystem::path path_;
  std::shared_ptr<Mapping> mapping_;
  SafetensorsHeader header_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes the tensors in the order given, with "format": "pt", and replaces `path` durably
// (vlm/core/durable_file.h).
void save_safetensors(const std::filesystem::path& path, const NamedTensors& tensors);

// Writes straight to `path`, without the temporary file and without waiting for the disk: for files
// that their reader checks. What a failed write leaves behind is the caller's to remove.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors);

// Reads the whole file into memory of its own, in the order of the names: for files that another
// process may shorten meanwhile, which would end a process that has them mapped. Throws Error as
// SafetensorsFile.
NamedTensors read_safetensors(const std::filesystem::path& path);

// "[2, 3]", for messages.
std::string shape_text(at::IntArrayRef shape);

// "F32", "BF16", … as the files name them. Throws Error for a dtype that safetensors files don't
// hold.
std::string dtype_text(at::ScalarType dtype);

}  // namespace vlm

#include "vlm/io/gguf/gguf_file.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/io/gguf/gguf_parts.h"
#include "vlm/io/parallel.h"

namespace vlm {
namespace {

constexpr std::int64_t kWidenedValues = 256 * 256;  // at a time
constexpr std::uint64_t kAlignment = 32;
constexpr std::size_t kMostNameBytes = 63;

Error gguf_error(const std::filesystem::path& path, const std::string& what) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

template <typename T>
void append(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& to, const std::string& text) {
  append(to, static_cast<std::uint64_t>(text.size()));
  to += text;
}

void append_value(std::string& to, GgufValueType type, const Json& value) {
  switch (type) {
    case GgufValueType::kUint8:
      return append(to, value.get<std::uint8_t>());
    case GgufValueType::kInt8:
      return append(to, value.get<std::int8_t>());
    case GgufValueType::kUint16:
      return append(to, value.get<std::uint16_t>());
    case GgufValueType::kInt16:
      return append(to, value.get<std::int16_t>());
    case GgufValueType::kUint32:
      return append(to, value.get<std::uint32_t>());
    case GgufValueType::kInt32:
      return append(to, value.get<std::int32_t>());
    case GgufValueType::kFloat32:
      return append(to, value.get<float>());
    case GgufValueType::kBool:
      return append(to, static_cast<std::uint8_t>(value.get<bool>()));
    case GgufValueType::kString:
      return append_text(to, value.get_ref<const std::string&>());
    case GgufValueType::kUint64:
      return append(to, value.get<std::uint64_t>());
    case GgufValueType::kInt64:
      return append(to, value.get<std::int64_t>());
    case GgufValueType::kFloat64:
      return append(to, value.get<double>());
    case GgufValueType::kArray:
      break;
  }
  TORCH_CHECK(false, "a list of lists for a GGUF file");
}

void append_pair(std::string& to, const std::string& key, const GgufValue& pair) {
  append_text(to, key);
  if (!pair.value.is_array()) {
    append(to, static_cast<std::uint32_t>(pair.type));
    return append_value(to, pair.type, pair.value);
  }
  append(to, static_cast<std::uint32_t>(GgufValueType::kArray));
  append(to, static_cast<std::uint32_t>(pair.type));
  append(to, static_cast<std::uint64_t>(pair.value.size()));
  for (const Json& item : pair.value) append_value(to, pair.type, item);
}

std::uint64_t padding(std::uint64_t bytes) {
  return (kAlignment - bytes % kAlignment) % kAlignment;
}

}  // namespace

struct GgufFile::Mapping {
  char* data = nullptr;
  std::size_t bytes = 0;
  ~Mapping() {
    if (data) ::munmap(data, bytes);
  }
};

GgufFile::GgufFile(const std::filesystem::path& path) : header_(map(path)) {
  const std::int64_t count = header_.number(kPartCount, 0);
  if (count > 1) add_parts(count);
}

// The file becomes the last of the mappings.
GgufHeader GgufFile::map(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw gguf_error(path, "can't open the file");
  struct stat status = {};
  const bool is_file = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  void* data = MAP_FAILED;
  if (is_file && status.st_size > 0) {
    data = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_NORESERVE, file, 0);
  }
  ::close(file);
  if (!is_file || status.st_size == 0) {
    throw Error({.what = is_file ? "file is empty" : "is not a file", .where = path.string()});
  }
  if (data == MAP_FAILED) throw gguf_error(path, "can't map the file");
  paths_.push_back(path);
  const auto mapping = mappings_.emplace_back(std::make_shared<Mapping>());
  mapping->data = static_cast<char*>(data);
  mapping->bytes = static_cast<std::size_t>(status.st_size);
  return parse_gguf_header({mapping->data, mapping->bytes}, mapping->bytes, path.string());
}

void GgufFile::add_parts(std::int64_t count) {
  for (const std::filesystem::path& path : other_gguf_parts(path(), header_)) {
    const GgufHeader header = map(path);
    check_gguf_part(header, static_cast<std::int64_t>(mappings_.size()), count);
    for (const auto& [name, tensor] : header.tensors) {
      const auto [added, is_new] = header_.tensors.emplace(name, tensor);
      added->second.part = is_new ? mappings_.size() - 1 : added->second.part;
      if (is_new) continue;
      throw Error({.what = "tensor is in two parts of the model",
                   .where = concat(path.string(), ": ", name)});
    }
  }
  const auto found = std::ssize(header_.tensors);
  const std::int64_t wanted = header_.number("split.tensors.count", found);
  if (found == wanted) return;
  throw Error({.what = "the parts don't have all tensors of the model",
               .where = path().string(),
               .got = concat(found),
               .wanted = concat(wanted)});
}

const GgufTensor& GgufFile::tensor(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  if (found != header_.tensors.end()) return found->second;
  throw Error({.what = concat("no tensor '", name, "'"), .where = path().string()});
}

at::Tensor GgufFile::blocks(const std::string& name) const {
  const GgufTensor& found = tensor(name);
  const auto bytes = static_cast<std::int64_t>(found.end - found.begin);
  const std::int64_t rows = found.shape.size() == 1 ? 1 : found.shape[0];
  return at::from_blob(
      mappings_[found.part]->data + found.begin, {rows, bytes / rows},
      [keep = mappings_[found.part]](void*) {}, at::TensorOptions().dtype(at::kByte));
}

at::Tensor GgufFile::values(const std::string& name) const {
  const GgufTensor& found = tensor(name);
  const at::Tensor bytes = blocks(name);
  const auto* data = bytes.const_data_ptr<std::uint8_t>();
  const bool is_kept =
      found.type == GgufType::kF32 || found.type == GgufType::kF16 || found.type == GgufType::kBF16;
  if (is_kept) {
    const at::ScalarType dtype = found.type == GgufType::kF32   ? at::kFloat
                                 : found.type == GgufType::kF16 ? at::kHalf
                                                                : at::kBFloat16;
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(data) % at::elementSize(dtype) == 0;
    const at::Tensor whole = is_aligned ? bytes : bytes.clone();
    return whole.view(dtype).view(found.shape);
  }
  at::Tensor wide = at::empty(found.shape, at::kFloat);
  const GgufBlock& block = gguf_block(found.type);
  const std::int64_t count = wide.numel();
  run_pieces((count + kWidenedValues - 1) / kWidenedValues, [&](std::int64_t i) {
    const std::int64_t first = i * kWidenedValues;
    widen_gguf(found.type, data + first / block.values * block.bytes,
               std::min(kWidenedValues, count - first), wide.mutable_data_ptr<float>() + first);
  });
  return wide;
}

bool is_gguf(const std::filesystem::path& path) {
  return path.extension() == ".gguf";
}

void save_gguf(const std::filesystem::path& path,
               const std::vector<std::pair<std::string, GgufValue>>& values,
               const std::vector<GgufOutput>& tensors) {
  std::string header = "GGUF";
  append(header, std::uint32_t{3});
  append(header, static_cast<std::uint64_t>(tensors.size()));
  append(header, static_cast<std::uint64_t>(values.size()));
  for (const auto& [key, value] : values) append_pair(header, key, value);
  std::uint64_t offset = 0;
  for (const GgufOutput& tensor : tensors) {
    TORCH_CHECK(tensor.name.size() <= kMostNameBytes && tensor.shape.size() <= 4 &&
                    tensor.blocks.nbytes() == gguf_bytes(tensor.type, tensor.shape),
                "a tensor for a GGUF file: ", tensor.name, " ", tensor.blocks.sizes());
    append_text(header, tensor.name);
    append(header, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto side = tensor.shape.rbegin(); side != tensor.shape.rend(); ++side) {
      append(header, static_cast<std::uint64_t>(*side));
    }
    append(header, static_cast<std::uint32_t>(tensor.type));
    append(header, offset);
    offset += tensor.blocks.nbytes() + padding(tensor.blocks.nbytes());
  }
  header.append(padding(header.size()), '\0');
  NewFile file(path);
  file.write(header);
  for (const GgufOutput& tensor : tensors) {
    const at::Tensor flat = tensor.blocks.contiguous();
    file.write({static_cast<const char*>(flat.const_data_ptr()), flat.nbytes()});
    file.write(std::string(padding(flat.nbytes()), '\0'));
  }
  file.commit();
}

GgufOutput gguf_dense(const std::string& name, const at::Tensor& values, GgufType type) {
  const at::ScalarType dtype = type == GgufType::kF16    ? at::kHalf
                               : type == GgufType::kBF16 ? at::kBFloat16
                                                         : at::kFloat;
  const at::Tensor flat = values.detach().to(dtype).contiguous();
  return {name, type, flat.sizes().vec(), flat.view({-1}).view(at::kByte)};
}

}  // namespace vlm

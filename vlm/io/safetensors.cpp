#include "vlm/io/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

// The official reader's bound; a header is some hundred bytes a tensor.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxDimensions = 16;

constexpr std::array<std::pair<const char*, at::ScalarType>, 9> kDtypes = {{
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"F64", at::kDouble},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
}};

at::ScalarType parse_dtype(const Json& value, const std::string& where) {
  for (const auto& [name, dtype] : kDtypes) {
    if (value == name) return dtype;
  }
  std::vector<std::string> names;
  for (const auto& [name, dtype] : kDtypes) names.emplace_back(name);
  throw Error({.what = "unsupported dtype",
               .where = where,
               .got = describe(value),
               .wanted = concat("one of ", join(names))});
}

// A JSON list of `size` non-negative integers (any number of them for size 0).
std::vector<std::uint64_t> parse_sizes(const Json& value, std::size_t size,
                                       const std::string& where) {
  bool good = value.is_array() && (size == 0 || value.size() == size);
  std::vector<std::uint64_t> sizes;
  if (good) {
    for (const Json& item : value) {
      good = good && item.is_number_unsigned();
      if (good) sizes.push_back(item.get<std::uint64_t>());
    }
  }
  if (!good) {
    throw Error({.what = "malformed header entry",
                 .where = where,
                 .got = describe(value),
                 .wanted = size ? concat("a list of ", size, " non-negative integers")
                                : "a list of non-negative integers"});
  }
  return sizes;
}

// Product of the sides, refusing overflow; a side of 0 hides none, as strides multiply the others.
std::uint64_t count_elements(const std::vector<std::uint64_t>& shape, const std::string& where) {
  std::uint64_t count = 1;
  bool overflow = shape.size() > kMaxDimensions;
  bool is_empty = false;
  for (const std::uint64_t side : shape) {
    is_empty = is_empty || side == 0;
    const std::uint64_t factor = std::max<std::uint64_t>(side, 1);
    overflow = overflow || __builtin_mul_overflow(count, factor, &count);
  }
  if (overflow || (count >> 58) != 0) {
    throw Error({.what = "absurd shape", .where = where, .got = concat("[", join(shape), "]")});
  }
  return is_empty ? 0 : count;
}

const Json& require(const Json& entry, const char* key, const std::string& where) {
  const auto found = entry.is_object() ? entry.find(key) : entry.end();
  if (!entry.is_object() || found == entry.end()) {
    throw Error(
        {.what = concat("header entry lacks '", key, "'"), .where = where, .got = describe(entry)});
  }
  return *found;
}

TensorEntry parse_entry(const Json& json, std::uint64_t data_bytes, const std::string& where) {
  TensorEntry entry;
  entry.dtype = parse_dtype(require(json, "dtype", where), where);
  const auto shape = parse_sizes(require(json, "shape", where), 0, where);
  const std::uint64_t wanted = count_elements(shape, where) * at::elementSize(entry.dtype);
  entry.shape.assign(shape.begin(), shape.end());
  const auto offsets = parse_sizes(require(json, "data_offsets", where), 2, where);
  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.begin > entry.end || entry.end > data_bytes) {
    throw Error({.what = "offsets leave the file",
                 .where = where,
                 .got = concat("[", entry.begin, ", ", entry.end, ")"),
                 .wanted = concat("within the ", data_bytes, " bytes of data"),
                 .hint = "is the file cut short?"});
  }
  if (entry.end - entry.begin != wanted) {
    throw Error({.what = "size doesn't fit dtype and shape",
                 .where = where,
                 .got = concat(entry.end - entry.begin, " bytes"),
                 .wanted = concat(wanted, " bytes for ", dtype_text(entry.dtype), " [",
                                  join(entry.shape), "]")});
  }
  return entry;
}

std::map<std::string, std::string> parse_metadata(const Json& json, const std::string& where) {
  std::map<std::string, std::string> metadata;
  bool good = json.is_object();
  for (auto item = json.begin(); good && item != json.end(); ++item) {
    good = item->is_string();
    if (good) metadata[item.key()] = item->get<std::string>();
  }
  if (good) return metadata;
  throw Error({.what = "malformed metadata",
               .where = where,
               .got = describe(json),
               .wanted = "an object of strings"});
}

// The data must be covered exactly once: no overlap, no gap, nothing left over.
void check_coverage(const SafetensorsHeader& header, std::uint64_t data_bytes,
                    const std::string& where) {
  std::vector<std::pair<const TensorEntry*, const std::string*>> sorted;
  for (const auto& [name, entry] : header.entries) sorted.emplace_back(&entry, &name);
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  std::uint64_t covered = 0;
  for (const auto& [entry, name] : sorted) {
    if (entry->begin != covered) {
      throw Error({.what = entry->begin < covered ? "tensors overlap" : "gap before tensor",
                   .where = where + ": " + *name,
                   .got = concat("begin ", entry->begin),
                   .wanted = concat(covered)});
    }
    covered = entry->end;
  }
  if (covered != data_bytes) {
    throw Error({.what = "file is longer than its tensors",
                 .where = where,
                 .got = concat(data_bytes, " bytes of data"),
                 .wanted = concat(covered)});
  }
}

Error os_error(const std::filesystem::path& path, const std::string& what) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

void write_all(int file, const void* data, std::size_t bytes, const std::filesystem::path& path) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(file, at, std::min<std::size_t>(bytes, 1 << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw os_error(path, "can't write the file");
    at += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

std::string make_header(const NamedTensors& tensors) {
  OrderedJson header;
  header["__metadata__"]["format"] = "pt";
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::uint64_t end = offset + tensor.nbytes();
    header[name] = {{"dtype", dtype_text(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts aligned
  return text;
}

void write_tensors(int file, const NamedTensors& tensors, const std::filesystem::path& path) {
  const std::string header = make_header(tensors);
  const std::uint64_t header_bytes = header.size();
  write_all(file, &header_bytes, sizeof header_bytes, path);
  write_all(file, header.data(), header.size(), path);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor flat = tensor.detach().cpu().contiguous();
    write_all(file, flat.data_ptr(), flat.nbytes(), path);
  }
}

struct FilePart {
  void* data;
  std::size_t bytes;
  std::size_t offset;
};

void read_part(int file, FilePart part, const std::filesystem::path& path) {
  while (part.bytes > 0) {
    const ssize_t got = ::pread(file, part.data, std::min<std::size_t>(part.bytes, 1 << 30),
                                static_cast<off_t>(part.offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw os_error(path, "can't read the file");
    if (got == 0) throw Error({.what = "file ends too early", .where = path.string()});
    const auto count = static_cast<std::size_t>(got);
    part = {static_cast<char*>(part.data) + count, part.bytes - count, part.offset + count};
  }
}

// A file descriptor that closes itself.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

// The size of an open file that can hold a header's length.
std::size_t checked_size(int file, const std::filesystem::path& path) {
  struct stat status = {};
  if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error({.what = "is not a file", .where = path.string()});
  }
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes >= 8) return bytes;
  throw Error({.what = "too short for a safetensors file",
               .where = path.string(),
               .got = concat(bytes, " bytes"),
               .wanted = "at least 8"});
}

void check_header_length(std::uint64_t header_bytes, std::size_t file_bytes,
                         const std::filesystem::path& path) {
  const std::uint64_t most = std::min<std::uint64_t>(file_bytes - 8, kMaxHeaderBytes);
  if (header_bytes <= most) return;
  throw Error({.what = "header length is past the end of the file",
               .where = path.string(),
               .got = concat(header_bytes, " bytes"),
               .wanted = concat("at most ", most),
               .hint = "is it a safetensors file, and whole?"});
}

}  // namespace

struct SafetensorsFile::Mapping {
  char* data = nullptr;
  std::size_t bytes = 0;
  std::size_t data_begin = 0;  // first byte after the header
  ~Mapping() {
    if (data) ::munmap(data, bytes);
  }
};

SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes,
                                           const std::string& where) {
  const Json parsed = parse_json(json, where);
  if (!parsed.is_object()) {
    throw Error({.what = "header is not an object", .where = where, .got = describe(parsed)});
  }
  SafetensorsHeader header;
  for (const auto& [name, value] : parsed.items()) {
    if (name == "__metadata__") {
      header.metadata = parse_metadata(value, where + ": " + name);
      continue;
    }
    header.entries[name] = parse_entry(value, data_bytes, where + ": " + name);
  }
  check_coverage(header, data_bytes, where);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), mapping_(std::make_shared<Mapping>()) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) throw os_error(path, "can't open the file");
  const std::size_t bytes = checked_size(file.value, path);
  void* data =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.value, 0);
  if (data == MAP_FAILED) throw os_error(path, "can't map the file");
  mapping_->data = static_cast<char*>(data);
  mapping_->bytes = bytes;

  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, mapping_->data, sizeof header_bytes);
  check_header_length(header_bytes, bytes, path);
  mapping_->data_begin = 8 + header_bytes;
  header_ = parse_safetensors_header({mapping_->data + 8, header_bytes},
                                     bytes - mapping_->data_begin, path.string());
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = header_.entries.find(name);
  if (found == header_.entries.end()) {
    throw Error({.what = concat("no tensor '", name, "'"), .where = path_.string()});
  }
  const TensorEntry& entry = found->second;
  char* data = mapping_->data + mapping_->data_begin + entry.begin;
  // from_blob keeps the mapping alive by holding a reference in its deleter.
  at::Tensor view = at::from_blob(
      data, entry.shape, [keep = mapping_](void*) {}, at::TensorOptions().dtype(entry.dtype));
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % at::elementSize(entry.dtype) == 0;
  return aligned ? view : view.clone();
}

void save_safetensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  NewFile file(path);
  write_tensors(file.descriptor(), tensors, path);
  file.commit();
}

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  const Descriptor file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (file.value < 0) throw os_error(path, "can't write the file");
  write_tensors(file.value, tensors, path);
}

NamedTensors read_safetensors(const std::filesystem::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) throw os_error(path, "can't open the file");
  const std::size_t bytes = checked_size(file.value, path);
  std::uint64_t header_bytes = 0;
  read_part(file.value, {&header_bytes, sizeof header_bytes, 0}, path);
  check_header_length(header_bytes, bytes, path);
  std::string json(header_bytes, '\0');
  read_part(file.value, {json.data(), json.size(), 8}, path);
  const std::size_t data_begin = 8 + header_bytes;
  const SafetensorsHeader header =
      parse_safetensors_header(json, bytes - data_begin, path.string());
  NamedTensors tensors;
  for (const auto& [name, entry] : header.entries) {
    at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(entry.dtype));
    read_part(file.value, {tensor.data_ptr(), tensor.nbytes(), data_begin + entry.begin}, path);
    tensors.emplace_back(name, std::move(tensor));
  }
  return tensors;
}

std::string shape_text(at::IntArrayRef shape) {
  return concat("[", join(shape), "]");
}

std::string dtype_text(at::ScalarType dtype) {
  for (const auto& [name, known] : kDtypes) {
    if (known == dtype) return name;
  }
  throw Error(
      {.what = concat("dtype ", at::toString(dtype), " has no place in a safetensors file")});
}

}  // namespace vlm

#include "vlm/io/gguf/gguf_header.h"

#include <bit>
#include <cstring>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr std::uint64_t kLeastPair = 8 + 4 + 1;  // bytes of a key, a type and a value
constexpr std::uint64_t kLeastTensor = 8 + 4 + 8 + 4 + 8;
constexpr std::uint64_t kMostLength = 1ULL << 30;  // of a text, and of a list
constexpr std::uint64_t kMostValues = 1ULL << 58;
constexpr std::uint32_t kMostDimensions = 4;
constexpr std::uint64_t kMostAlignment = 1ULL << 20;
constexpr const char* kAlignmentKey = "general.alignment";

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t size = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
    if (size == 0 || size > text.size() - i) return false;
    for (std::size_t k = 1; k < size; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      const unsigned least = k > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      const unsigned most = k > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      if (next < least || next > most) return false;
    }
    i += size;
  }
  return true;
}

// Goes through the bytes from the front. `where` names what is read at the moment.
class Cursor {
 public:
  Cursor(std::string_view bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  template <typename T>
  T take() {
    need(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::string take_text() {
    const auto length = take<std::uint64_t>();
    if (length > kMostLength || length > left()) refuse_length("text", length);
    const std::string_view text = bytes_.substr(at_, length);
    if (!is_utf8(text) || text.find('\0') != std::string_view::npos) {
      throw Error({.what = "text is not UTF-8", .where = where_});
    }
    at_ += length;
    return std::string(text);
  }

  // A number of things of at least `least` bytes each.
  std::uint64_t take_count(const char* of, std::uint64_t least) {
    const auto count = take<std::uint64_t>();
    if (count > left() / least) refuse_length(of, count);
    return count;
  }

  std::uint64_t left() const { return bytes_.size() - at_; }
  std::uint64_t at() const { return at_; }
  const std::string& where() const { return where_; }
  void name(std::string where) { where_ = std::move(where); }

  [[noreturn]] void refuse_length(const char* of, std::uint64_t got) const {
    throw Error({.what = concat("length of a ", of, " is past the end of the file"),
                 .where = where_,
                 .got = concat(got),
                 .wanted = concat("what ", left(), " bytes can hold"),
                 .hint = "is the file whole?"});
  }

 private:
  void need(std::uint64_t bytes) const {
    if (bytes <= left()) return;
    throw Error({.what = "file ends within its header", .where = where_, .hint = "is it whole?"});
  }

  std::string_view bytes_;
  std::uint64_t at_ = 0;
  std::string where_;
};

std::uint64_t least_bytes(GgufValueType type, const Cursor& from) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kString:
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kArray:
      break;
  }
  throw Error({.what = "a list of lists, or a value of no type",
               .where = from.where(),
               .got = concat("type ", static_cast<std::uint32_t>(type)),
               .wanted = "0 to 8, or 10 to 12"});
}

Json take_value(GgufValueType type, Cursor& from) {
  switch (type) {
    case GgufValueType::kUint8:
      return from.take<std::uint8_t>();
    case GgufValueType::kInt8:
      return from.take<std::int8_t>();
    case GgufValueType::kUint16:
      return from.take<std::uint16_t>();
    case GgufValueType::kInt16:
      return from.take<std::int16_t>();
    case GgufValueType::kUint32:
      return from.take<std::uint32_t>();
    case GgufValueType::kInt32:
      return from.take<std::int32_t>();
    case GgufValueType::kFloat32:
      return static_cast<double>(from.take<float>());
    case GgufValueType::kBool:
      return from.take<std::uint8_t>() != 0;
    case GgufValueType::kString:
      return from.take_text();
    case GgufValueType::kUint64:
      return from.take<std::uint64_t>();
    case GgufValueType::kInt64:
      return from.take<std::int64_t>();
    case GgufValueType::kFloat64:
      return from.take<double>();
    case GgufValueType::kArray:
      break;
  }
  least_bytes(type, from);  // throws
  return {};
}

GgufValue take_pair_value(Cursor& from) {
  auto type = static_cast<GgufValueType>(from.take<std::uint32_t>());
  if (type != GgufValueType::kArray) return {type, take_value(type, from)};
  type = static_cast<GgufValueType>(from.take<std::uint32_t>());
  const std::uint64_t count = from.take_count("list", least_bytes(type, from));
  if (count > kMostLength) from.refuse_length("list", count);
  Json list = Json::array();
  list.get_ref<Json::array_t&>().reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) list.push_back(take_value(type, from));
  return {type, std::move(list)};
}

void take_values(std::uint64_t count, Cursor& from, GgufHeader& header) {
  for (std::uint64_t i = 0; i < count; ++i) {
    from.name(concat(header.where, ": key ", i));
    const std::string key = from.take_text();
    from.name(concat(header.where, ": ", key));
    if (key.empty() || header.values.count(key)) {
      throw Error(
          {.what = key.empty() ? "key is empty" : "key given twice", .where = from.where()});
    }
    header.values.emplace(key, take_pair_value(from));
  }
}

std::vector<std::int64_t> take_shape(Cursor& from) {
  const auto dimensions = from.take<std::uint32_t>();
  if (dimensions < 1 || dimensions > kMostDimensions) {
    throw Error({.what = "number of dimensions",
                 .where = from.where(),
                 .got = concat(dimensions),
                 .wanted = concat("1 to ", kMostDimensions)});
  }
  std::vector<std::int64_t> shape(dimensions);
  std::uint64_t values = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = from.take<std::uint64_t>();
    if (size == 0 || __builtin_mul_overflow(values, size, &values) || values > kMostValues) {
      throw Error({.what = "absurd shape", .where = from.where(), .got = concat("size ", size)});
    }
    shape[dimensions - 1 - i] = static_cast<std::int64_t>(size);  // the fastest comes first
  }
  return shape;
}

GgufTensor take_tensor(Cursor& from) {
  GgufTensor tensor{.shape = take_shape(from)};
  const auto type = from.take<std::uint32_t>();
  const GgufBlock* block = find_gguf_block(type);
  if (!block) {
    throw Error({.what = "unsupported type of tensor",
                 .where = from.where(),
                 .got = gguf_type_name(type),
                 .wanted = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, "
                           "IQ4_XS, MXFP4 or NVFP4"});
  }
  if (tensor.shape.back() % block->values != 0) {
    throw Error({.what = "row isn't whole blocks",
                 .where = from.where(),
                 .got = concat(tensor.shape.back(), " values"),
                 .wanted = concat("a multiple of ", block->values, " for ", block->name)});
  }
  tensor.type = block->type;
  tensor.begin = from.take<std::uint64_t>();
  return tensor;
}

std::uint64_t read_alignment(const GgufHeader& header) {
  const std::int64_t alignment = header.number(kAlignmentKey, 32);
  const auto value = static_cast<std::uint64_t>(alignment);
  if (alignment > 0 && value <= kMostAlignment && std::has_single_bit(value)) return value;
  throw Error({.what = "value out of range",
               .where = concat(header.where, ": ", kAlignmentKey),
               .got = concat(alignment),
               .wanted = "a power of two"});
}

std::uint64_t pad_to(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Tensors in the order of the file, and their places in it.
void take_tensors(std::uint64_t count, std::uint64_t file_bytes, Cursor& from, GgufHeader& header) {
  std::vector<GgufTensor*> listed;
  for (std::uint64_t i = 0; i < count; ++i) {
    from.name(concat(header.where, ": tensor ", i));
    const std::string name = from.take_text();
    from.name(concat(header.where, ": ", name));
    const auto [found, is_new] = header.tensors.emplace(name, GgufTensor());
    if (name.empty() || !is_new) {
      throw Error({.what = "tensor without a name of its own", .where = from.where()});
    }
    found->second = take_tensor(from);
    listed.push_back(&found->second);
  }
  header.header_bytes = from.at();
  const std::uint64_t alignment = read_alignment(header);
  const std::uint64_t data = pad_to(from.at(), alignment);
  std::uint64_t next = 0;
  for (GgufTensor* tensor : listed) {
    const std::uint64_t bytes = gguf_bytes(tensor->type, tensor->shape);
    if (tensor->begin != next || data > file_bytes || bytes > file_bytes - data - next) {
      std::string name;
      for (const auto& [key, value] : header.tensors) name = &value == tensor ? key : name;
      throw Error({.what = tensor->begin == next ? "data leave the file" : "gap or overlap",
                   .where = concat(header.where, ": ", name),
                   .got = concat("offset ", tensor->begin, ", ", bytes, " bytes"),
                   .wanted = tensor->begin == next ? concat("within ", file_bytes, " bytes")
                                                   : concat("offset ", next),
                   .hint = "is the file whole?"});
    }
    tensor->begin = data + next;
    tensor->end = tensor->begin + bytes;
    // What is within the file can't overflow; the padding of the last tensor may be missing.
    next = pad_to(next + bytes, alignment);
    if (next > file_bytes - data) next = file_bytes - data;
  }
}

void check_version(std::uint32_t version, const std::string& where) {
  if (version == 2 || version == 3) return;
  const bool is_swapped = (version & 0xFFFFU) == 0;
  throw Error({.what = is_swapped ? "a big-endian GGUF file" : "unsupported version of GGUF",
               .where = where,
               .got = is_swapped ? "" : concat(version),
               .wanted = is_swapped ? "a little-endian one" : "2 or 3"});
}

[[noreturn]] void refuse_kind(const GgufHeader& header, const std::string& key, const Json* found,
                              const char* wanted) {
  throw Error({.what = found ? "value of another kind" : "key is missing",
               .where = concat(header.where, ": ", key),
               .got = found ? describe(*found) : "",
               .wanted = wanted});
}

}  // namespace

const Json* GgufHeader::find(const std::string& key) const {
  const auto found = values.find(key);
  return found == values.end() ? nullptr : &found->second.value;
}

std::string GgufHeader::text(const std::string& key) const {
  const Json* found = find(key);
  if (!found || !found->is_string()) refuse_kind(*this, key, found, "a text");
  return found->get<std::string>();
}

std::string GgufHeader::text(const std::string& key, const std::string& missing) const {
  return find(key) ? text(key) : missing;
}

std::int64_t GgufHeader::number(const std::string& key) const {
  const Json* found = find(key);
  const bool fits = found && found->is_number_integer() &&
                    (!found->is_number_unsigned() || found->get<std::uint64_t>() >> 63 == 0);
  if (!fits) refuse_kind(*this, key, found, "an integer");
  return found->get<std::int64_t>();
}

std::int64_t GgufHeader::number(const std::string& key, std::int64_t missing) const {
  return find(key) ? number(key) : missing;
}

double GgufHeader::real(const std::string& key, double missing) const {
  const Json* found = find(key);
  if (!found) return missing;
  if (!found->is_number()) refuse_kind(*this, key, found, "a number");
  return found->get<double>();
}

bool GgufHeader::flag(const std::string& key, bool missing) const {
  const Json* found = find(key);
  if (!found) return missing;
  if (!found->is_boolean()) refuse_kind(*this, key, found, "true or false");
  return found->get<bool>();
}

const Json& GgufHeader::list(const std::string& key) const {
  const Json* found = find(key);
  if (!found || !found->is_array()) refuse_kind(*this, key, found, "a list");
  return *found;
}

std::uint64_t gguf_bytes(GgufType type, const std::vector<std::int64_t>& shape) {
  const GgufBlock& block = gguf_block(type);
  std::uint64_t values = 1;
  for (const std::int64_t side : shape) values *= static_cast<std::uint64_t>(side);
  return values / static_cast<std::uint64_t>(block.values) *
         static_cast<std::uint64_t>(block.bytes);
}

GgufHeader parse_gguf_header(std::string_view bytes, std::uint64_t file_bytes,
                             const std::string& where) {
  GgufHeader header{.where = where};
  Cursor from(bytes, where);
  if (!bytes.starts_with("GGUF")) {
    throw Error(
        {.what = "is not a GGUF file", .where = where, .wanted = "the bytes GGUF in front"});
  }
  from.take<std::uint32_t>();
  check_version(from.take<std::uint32_t>(), where);
  const std::uint64_t tensors = from.take_count("list of tensors", kLeastTensor);
  const std::uint64_t pairs = from.take_count("list of keys", kLeastPair);
  take_values(pairs, from, header);
  take_tensors(tensors, file_bytes, from, header);
  return header;
}

}  // namespace vlm

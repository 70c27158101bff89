// What a GGUF file holds: its keys and values, and where its tensors lie.
//
//   first bytes of a file ─► parse_gguf_header ─► GgufHeader
//
// The file is not trusted: every count, length and offset is compared with what the file still has
// before anything is made of it, and whatever doesn't fit is an Error that names the key or tensor.
// Tensors lie one behind the other in the order of their list, each padded to the alignment, as
// llama.cpp demands it. Versions 2 and 3, little-endian. Of a model in several parts this is one
// part's; gguf_file.h puts them together.
// Reference: gguf.cpp of llama.cpp, October 2026.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/io/gguf/gguf_types.h"

namespace vlm {

// The numbers are the files'.
enum class GgufValueType : std::uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// A number, a boolean, a text or a list of them, with the type that it has in the file; of a list
// that of its elements.
struct GgufValue {
  GgufValueType type = GgufValueType::kString;
  Json value;
};

// A tensor with its sizes in the order of Hugging Face, [out, in]; bytes count from the begin of
// the file.
struct GgufTensor {
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
  std::size_t part = 0;  // which of the files, where there are several
};

struct GgufHeader {
  std::string where;  // the file, for errors
  std::map<std::string, GgufValue> values;
  std::map<std::string, GgufTensor> tensors;
  std::uint64_t header_bytes = 0;  // what the file's keys and its list of tensors take

  // The value of a key; null where there is none.
  const Json* find(const std::string& key) const;
  // Throw Error for a missing key or one of another kind; the second forms take what `missing`
  // says for a missing one.
  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& missing) const;
  std::int64_t number(const std::string& key) const;
  std::int64_t number(const std::string& key, std::int64_t missing) const;
  double real(const std::string& key, double missing) const;
  bool flag(const std::string& key, bool missing) const;
  const Json& list(const std::string& key) const;
};

// Bytes that a tensor takes; the row is whole blocks.
std::uint64_t gguf_bytes(GgufType type, const std::vector<std::int64_t>& shape);

// `bytes` are the first of a file of `file_bytes`; what lies behind them is taken for data.
GgufHeader parse_gguf_header(std::string_view bytes, std::uint64_t file_bytes,
                             const std::string& where);

}  // namespace vlm

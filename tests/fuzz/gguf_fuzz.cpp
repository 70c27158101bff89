// Bytes → the header of a GGUF file: an Error or keys and tensors that keep every promise.
//
// The first byte says how long the file is behind what is given: times 64, or times 2^50 when its
// highest bit is set. What lies there is never read.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string_view>

#include "vlm/core/error.h"
#include "vlm/io/gguf/gguf_header.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

// Inside the file, as large as type and shape say, no byte in two of them.
void check_tensors(const vlm::GgufHeader& header, std::uint64_t file_bytes) {
  std::map<std::uint64_t, std::uint64_t> places;
  for (const auto& [name, tensor] : header.tensors) {
    demand(!tensor.shape.empty() && tensor.shape.size() <= 4);
    std::uint64_t values = 1;
    for (const std::int64_t side : tensor.shape) {
      demand(side > 0);
      demand(!__builtin_mul_overflow(values, static_cast<std::uint64_t>(side), &values));
    }
    demand(tensor.begin >= header.header_bytes && tensor.begin <= tensor.end);
    demand(tensor.end <= file_bytes);
    demand(tensor.end - tensor.begin == vlm::gguf_bytes(tensor.type, tensor.shape));
    demand(places.emplace(tensor.begin, tensor.end).second);
  }
  std::uint64_t end = header.header_bytes;
  for (const auto& [begin, next] : places) {
    demand(begin >= end);
    end = next;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::uint64_t behind = (data[0] & 0x7FU) * (data[0] & 0x80U ? 1ULL << 50 : 64ULL);
  try {
    check_tensors(vlm::parse_gguf_header(bytes, bytes.size() + behind, "fuzz"),
                  bytes.size() + behind);
  } catch (const vlm::Error&) {
  }
  return 0;
}

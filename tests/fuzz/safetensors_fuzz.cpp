// Bytes → a safetensors header: an Error or entries that keep every promise.
//
// The input is the header's JSON with one byte before it, which says how much data follows: times
// 1, or times 2^50 when its highest bit is set. What the file class does before (length field, end
// of the file) has plain tests; mapping a file for every input would leave few inputs a second.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vlm/core/error.h"
#include "vlm/io/safetensors.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

// Inside the data, as large as the shape says, no byte owned twice or by none.
void check_entries(const vlm::SafetensorsHeader& header, std::uint64_t data_bytes) {
  std::uint64_t owned = 0;
  for (const auto& [name, entry] : header.entries) {
    std::uint64_t bytes = at::elementSize(entry.dtype);
    for (const std::int64_t side : entry.shape) {
      demand(side >= 0);
      demand(!__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(side), &bytes));
    }
    demand(entry.begin <= entry.end && entry.end <= data_bytes);
    demand(entry.end - entry.begin == bytes);
    owned += bytes;
  }
  demand(owned == data_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint64_t data_bytes = (data[0] & 0x7FU) * (data[0] & 0x80U ? 1ULL << 50 : 1ULL);
  const std::string_view json(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    check_entries(vlm::parse_safetensors_header(json, data_bytes, "fuzz"), data_bytes);
  } catch (const vlm::Error&) {
  }
  return 0;
}

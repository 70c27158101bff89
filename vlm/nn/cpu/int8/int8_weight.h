// Matrices in 8 bits, a scale a row: W[n, k] ≈ scales[n] · (codes[n, k] − 128).
//
//   weight [N, K] float32, bfloat16 or float16 ─► quantize_int8 ─► Int8Weight, 8 bits a value
//
// A row's scale makes its largest magnitude 127; values become the nearest integer. Codes are
// stored plus 128, because processors multiply unsigned with signed bytes; rows are padded with
// zeros to a multiple of kCodesStep. Reference: vector-wise quantization, LLM.int8 (arXiv
// 2208.07339).
#pragma once

#include <ATen/core/Tensor.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vlm/nn/cpu/lanes.h"

namespace vlm {

constexpr std::int64_t kCodesStep = 64;           // K is padded to a multiple of it
constexpr std::int64_t kMostInt8Depth = 1 << 16;  // sums of so many products fit 32 bits

struct Int8Weight {
  at::Tensor codes;   // [N, K padded] uint8
  at::Tensor scales;  // [N] float32
  std::int64_t in_features = 0;

  std::int64_t out_features() const { return codes.size(0); }
};

// From a matrix on the CPU, which may be mapped from a file, with at most kMostInt8Depth columns.
Int8Weight quantize_int8(const at::Tensor& weight);

// [N, K] float32
at::Tensor dequantize_int8(const Int8Weight& stored);

// The numbers of a piece of a matrix, in a row. What has to be widened takes a buffer that lives as
// long as the calling thread, until its next call.
const float* wide_values(const at::Tensor& piece);

// Result of rounding a row of `depth` numbers: numbers ≈ scale · codes.
struct QuantizedRow {
  float scale;       // NaN if one of them is no finite number
  std::int32_t sum;  // of the codes; 0 if the scale is NaN
};

// Writes `padded` codes (a multiple of 16): from -127 to 127, plus 128 if `Code` is unsigned, and
// zeros after the first `depth`.
template <typename Code>
VLM_INLINE QuantizedRow quantize_row(const float* from, std::int64_t depth, std::int64_t padded,
                                     Code* codes) {
  constexpr std::uint32_t kZero = std::is_unsigned_v<Code> ? 128 : 0;
  constexpr float kMost = 127.0F, kLeast = 1e-30F;
  const std::int64_t whole = depth / kLanes * kLanes;
  Floats most = {};
  for (std::int64_t k = 0; k < whole; k += kLanes) {
    most = larger((Floats)(load_lanes<Words>(from + k) & 0x7FFFFFFFU), most);
  }
  const Floats tail = load_partial(from + whole, depth - whole);
  most = larger((Floats)((Words)tail & 0x7FFFFFFFU), most);
  float largest = 0;
  for (int lane = 0; lane < kLanes; ++lane) largest = most[lane] > largest ? most[lane] : largest;
  const float factor = largest > kLeast ? kMost / largest : 0.0F;

  Words sums = {};
  Floats differences = {};
  for (std::int64_t k = 0; k < padded; k += kLanes) {
    const Floats values = k < whole ? load_lanes<Floats>(from + k) : k == whole ? tail : Floats{};
    differences += values - values;
    const Words shifted = (Words)(values * factor + kRound);
    sums += shifted - std::bit_cast<std::uint32_t>(kRound);
    const Bytes bytes = lowest_bytes(shifted + kZero);
    std::memcpy(codes + k, &bytes, sizeof bytes);
  }
  QuantizedRow row{.scale = largest > kLeast ? largest / kMost : 0.0F, .sum = 0};
  std::uint32_t sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    row.scale += differences[lane];
    sum += sums[lane];
  }
  if (row.scale == row.scale) row.sum = static_cast<std::int32_t>(sum);
  return row;
}

}  // namespace vlm

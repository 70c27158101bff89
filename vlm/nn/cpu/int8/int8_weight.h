// Matrices in 8 bits, a scale a row: W[n, k] ≈ scales[n] · (codes[n, k] − 128).
//
//   weight [N, K] float32, bfloat16 or float16 ─► quantize_int8 ─► Int8Weight, 8 bits a value
//
// A row's scale makes its largest magnitude 127; values become the nearest integer. The same as
// LLM.int8's and torchao's weights. Codes are counted from 128 because the processors' products
// take one side without a sign; they are padded to whole vectors, with zeros.
#pragma once

#include <ATen/core/Tensor.h>

#include <bit>
#include <cstdint>
#include <cstring>

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

// Of a matrix in memory, mapped or not, with at most kMostInt8Depth columns. CPU only.
Int8Weight quantize_int8(const at::Tensor& weight);

// [N, K] float32
at::Tensor dequantize_int8(const Int8Weight& stored);

// What a row of `depth` numbers became: numbers ≈ scale · codes.
struct QuantizedRow {
  float scale;       // NaN if one of them is no finite number
  std::int32_t sum;  // of the codes
};

// Codes from -127 to 127, `padded` of them with zeros behind `depth`; `padded` is a multiple of 16.
VLM_INLINE QuantizedRow quantize_row(const float* from, std::int64_t depth, std::int64_t padded,
                                     std::int8_t* codes) {
  constexpr float kMost = 127.0F, kLeast = 1e-30F;
  Floats most = {};
  for (std::int64_t k = 0; k < depth; k += kLanes) {
    most = larger((Floats)((Words)load_some(from + k, depth - k) & 0x7FFFFFFFU), most);
  }
  float largest = 0;
  for (int lane = 0; lane < kLanes; ++lane) largest = most[lane] > largest ? most[lane] : largest;
  const float factor = largest > kLeast ? kMost / largest : 0.0F;
  Words sums = {};
  Floats differences = {};
  for (std::int64_t k = 0; k < padded; k += kLanes) {
    const Floats values = k < depth ? load_some(from + k, depth - k) : Floats{};
    differences += values - values;
    const Words shifted = (Words)(values * factor + kRound);
    sums += shifted - std::bit_cast<std::uint32_t>(kRound);
    const Bytes bytes = __builtin_convertvector(shifted, Bytes);
    std::memcpy(codes + k, &bytes, sizeof bytes);
  }
  QuantizedRow row{.scale = largest > kLeast ? largest / kMost : 0.0F, .sum = 0};
  for (int lane = 0; lane < kLanes; ++lane) {
    row.scale += differences[lane];
    row.sum += static_cast<std::int32_t>(sums[lane]);
  }
  return row;
}

}  // namespace vlm

// Matrices in 4 bits, a scale for each 32 inputs of an output: W[n, k] ≈ scale · levels[code].
//
//   weight [N, K] float32, bfloat16 or float16 ─► quantize_int4 ─► Int4Weight, 4.5 bits a value
//
// A code chooses one of sixteen levels, so formats of the same layout differ in their levels alone.
// kEvenLevels are equally far apart; scales and codes are those of GGUF's Q4_0. kNearLevels are
// nearer to each other around zero, where most weights are (GGUF's IQ4_NL): 1.2 dB less error.
//
// 16 outputs × 32 inputs lie together in a block of 288 bytes, in the order in which processors
// multiply them; a panel is the blocks of 16 outputs, one behind the other along the inputs:
//
//   byte [j][r][i] (j 0…3, r 0…15, i 0…3): output r; input 8j + i in the low four bits, input
//   8j + 4 + i in the high ones
//   then 16 halves: the scales of the outputs
//
// Reference: ggml of llama.cpp, October 2026.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>

namespace vlm {

constexpr std::int64_t kInt4Group = 32;    // inputs that share a scale
constexpr std::int64_t kInt4Outputs = 16;  // outputs of a panel
constexpr std::int64_t kInt4Codes = kInt4Group * kInt4Outputs / 2;
constexpr std::int64_t kInt4Block = kInt4Codes + 2 * kInt4Outputs;  // bytes

// In rising order, from -127 to 127.
using Int4Levels = std::array<std::int8_t, 16>;

constexpr Int4Levels kEvenLevels = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
constexpr Int4Levels kNearLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

struct Int4Weight {
  at::Tensor blocks;  // [N / 16, K / 32, kInt4Block] uint8
  // Scales of the outputs where they are multiplied in 8 bits (int4_product.h): the largest of
  // their groups, as far as the levels can be stretched.
  at::Tensor row_scales;  // [N] float32
  Int4Levels levels = kNearLevels;

  std::int64_t out_features() const { return blocks.size(0) * kInt4Outputs; }
  std::int64_t in_features() const { return blocks.size(1) * kInt4Group; }
  const std::uint8_t* panel(std::int64_t i) const {
    return blocks.const_data_ptr<std::uint8_t>() + i * blocks.size(1) * kInt4Block;
  }
};

// By how much the levels can be multiplied and stay within 8 bits.
int int4_stretch(const Int4Levels& levels);

bool fits_int4(std::int64_t out_features, std::int64_t in_features);

// From a matrix on the CPU that fits, which may be mapped from a file, to even or near levels. A
// group with a number that isn't finite gets the scale NaN.
Int4Weight quantize_int4(const at::Tensor& weight, const Int4Levels& levels = kNearLevels);

// Numbers of a group ≈ scale · levels[codes].
struct CodedGroup {
  float scale;
  std::uint8_t codes[kInt4Group];
};

// From scales and codes: fill(i, groups) writes those of panel i, [16, K / 32] outputs by groups,
// and is called on any thread.
Int4Weight pack_int4(std::int64_t out_features, std::int64_t in_features, const Int4Levels& levels,
                     const std::function<void(std::int64_t, CodedGroup*)>& fill);

// `count` outputs from `first` on as numbers, [count, K].
void widen_int4(const Int4Weight& stored, std::int64_t first, std::int64_t count, float* to);
at::Tensor dequantize_int4(const Int4Weight& stored);  // [N, K] float32

}  // namespace vlm

// How a cache holds keys and values on a CPU: in float32, in bfloat16, or in 8 bits.
//
//   rows [..., D] float32 ─► encode_rows ─► held [..., W] ─► decode_rows ─► rows [..., D]
//
// In 8 bits a row (of one token and head) is D codes and, in the four bytes behind them, the
// float32 that they are multiplied by; the value of largest magnitude has the code 127 or -127.
// Codes of whole blocks of 64 numbers are mixed: byte 4 i + j has that of number 16 j + i, so that
// shifts of one vector of words give four vectors.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "vlm/nn/cpu/lanes.h"

namespace vlm {

// W of rows of `depth` numbers: kFloat, kBFloat16, or kChar for 8 bits.
std::int64_t held_width(std::int64_t depth, at::ScalarType held);

// x itself for kFloat. A row of 8 bits with NaN or infinity comes back as NaN.
at::Tensor encode_rows(const at::Tensor& x, at::ScalarType held);
at::Tensor decode_rows(const at::Tensor& held, std::int64_t depth);

constexpr std::int64_t kBlock = 4 * kLanes;

// One row each. Its numbers times scale() are load_part(row, d, j), the j-th 16 of the block that
// begins at d, and load(row, d), 16 from d on, for those behind the last whole block.

struct HeldFloats {
  VLM_INLINE static Floats load(const std::byte* row, std::int64_t d) {
    return load_lanes<Floats>(row + d * std::int64_t{sizeof(float)});
  }
  VLM_INLINE static Floats load_part(const std::byte* row, std::int64_t d, int j) {
    return load(row, d + j * kLanes);
  }
  VLM_INLINE static float scale(const std::byte*, std::int64_t) { return 1.0F; }

  VLM_INLINE static void store(const float* from, std::int64_t depth, std::byte* row) {
    std::memcpy(row, from, static_cast<std::size_t>(depth) * sizeof(float));
  }
};

struct HeldBfloat16 {
  VLM_INLINE static Floats load(const std::byte* row, std::int64_t d) {
    const auto halves = load_lanes<Halves>(row + d * std::int64_t{sizeof(std::uint16_t)});
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
  }
  VLM_INLINE static Floats load_part(const std::byte* row, std::int64_t d, int j) {
    return load(row, d + j * kLanes);
  }
  VLM_INLINE static float scale(const std::byte*, std::int64_t) { return 1.0F; }

  VLM_INLINE static void store(const float* from, std::int64_t depth, std::byte* row) {
    for (std::int64_t d = 0; d < depth; ++d) {
      const std::uint16_t half = round_to_bfloat16(from[d]);
      std::memcpy(row + d * std::int64_t{sizeof half}, &half, sizeof half);
    }
  }
};

struct HeldBytes {
  static constexpr float kMostCode = 127.0F;
  static constexpr float kLeast = 1e-30F;  // rows that are smaller count as zeros

  // Where the code of a number is.
  VLM_INLINE static std::int64_t place(std::int64_t number, std::int64_t depth) {
    const std::int64_t in_block = number % kBlock;
    if (number - in_block + kBlock > depth) return number;
    return number - in_block + in_block % kLanes * 4 + in_block / kLanes;
  }

  VLM_INLINE static Floats load(const std::byte* row, std::int64_t d) {
    Ints codes = {};
    for (int i = 0; i < kLanes; ++i) codes[i] = static_cast<std::int8_t>(row[d + i]);
    return __builtin_convertvector(codes, Floats);
  }
  VLM_INLINE static Floats load_part(const std::byte* row, std::int64_t d, int j) {
    const auto words = load_lanes<Words>(row + d);
    return __builtin_convertvector((Ints)(words << (24 - 8 * j)) >> 24, Floats);
  }
  VLM_INLINE static float scale(const std::byte* row, std::int64_t depth) {
    float value;
    std::memcpy(&value, row + depth, sizeof value);
    return value;
  }

  VLM_INLINE static void store(const float* from, std::int64_t depth, std::byte* row) {
    float largest = 0.0F, sum = 0.0F;
    for (std::int64_t d = 0; d < depth; ++d) {
      largest = std::max(largest, std::fabs(from[d]));
      sum += from[d] * 0.0F;  // NaN where any is NaN or infinite
    }
    const float step = largest / kMostCode + sum;
    const float factor = largest > kLeast && sum == 0.0F ? kMostCode / largest : 0.0F;
    for (std::int64_t d = 0; d < depth; ++d) {
      // Adding kRound leaves the nearest integer in the low bits.
      const float shifted = factor > 0.0F ? from[d] * factor + kRound : kRound;
      std::int32_t bits;
      std::memcpy(&bits, &shifted, sizeof bits);
      row[place(d, depth)] = static_cast<std::byte>(bits & 0xFF);
    }
    std::memcpy(row + depth, &step, sizeof step);
  }
};

}  // namespace vlm

// Products of a few rows of x in 8 bits with weights in 8 bits (int8_weight.h), for decoding.
// few_rows.h does the same with x in float32.
#pragma once

#include <cstdint>

namespace vlm {

struct Int8Rows {
  const std::int8_t* x;         // [rows, k]
  const float* x_scales;        // [rows]
  const std::int32_t* offsets;  // [rows]: what the weights' 128 adds to the sums
  const std::uint8_t* w;        // [n, k]
  const float* scales;          // [n]
  const float* bias;            // [n], or null
  float* y;                     // [rows, n]
  std::int64_t rows, k, n;      // k is a multiple of 64
};

// Columns `begin` … `end` of y, for all rows of x. The processor has products of 8 bits
// (has_int8_products).
void multiply_codes(const Int8Rows& product, std::int64_t begin, std::int64_t end);

}  // namespace vlm

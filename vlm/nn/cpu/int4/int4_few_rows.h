// Products of a few rows of x in 8 bits with weights in 4 bits (int4_weight.h), for decoding.
//
// A group's 32 products are summed as integers, then scaled and added in float32, in the order of
// the groups, with one rounding for the scaled x and one for the sum. So all kernels give the same
// numbers, whatever rows are multiplied together.
#pragma once

#include <cstdint>
#include <vector>

namespace vlm {

struct Int4Rows {
  const std::int8_t* x;         // [rows, inputs]: codes from -127 to 127
  const float* x_scales;        // [rows, inputs / 32]
  const std::int32_t* offsets;  // [rows, inputs / 32]: what 128 beside the levels adds to the sums
  const std::uint8_t* blocks;   // of the weight
  const std::int8_t* levels;    // [16]
  const float* bias;            // [outputs], or null
  float* y;                     // [rows, outputs]
  std::int64_t rows, inputs;
  std::int64_t n, k;  // panels, and weights of one, for run_columns
};

struct Int4Kernel {
  const char* name;
  bool is_usable;  // on this processor
  // Outputs of the panels `begin` … `end`, for all rows of x.
  void (*multiply)(const Int4Rows& product, std::int64_t begin, std::int64_t end);
};

// From the quickest on; the last is always usable.
const std::vector<Int4Kernel>& int4_kernels();

}  // namespace vlm

// y = x Wᵀ + b with W stored in 4 bits (int4_weight.h), beside activations in float32.
//
//   x [..., K] float32, weight [N, K], bias [N] float32 or undefined ─► [..., N] float32
//
// A few rows of x are rounded to 8 bits with a scale for each 32 inputs, and multiplied as the
// weights are stored (int4_few_rows.h); a row's result doesn't depend on the other rows. More rows
// get a scale each, and go through int4_product.h. On processors without products of 8 bits their
// x stays float32, and the weights are widened a block at a time.
//
// CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/int4/int4_product.h"
#include "vlm/nn/cpu/int8/int8_product.h"

namespace vlm {

// The result of each map for the same x. `with_products`: whether many rows of x are rounded to 8
// bits too.
std::vector<at::Tensor> int4_linears(const at::Tensor& x, const std::vector<Int4Map>& maps,
                                     bool with_products = has_int8_products());

// Whether rows [M, K] are enough for int4_product.h, which computes activations while their inputs
// are in the cache.
bool fills_int4_panels(const at::Tensor& rows);

// x [rows, K] in 8 bits with a scale for each 32 inputs; K is a multiple of 32.
struct GroupedRows {
  std::vector<std::int8_t> codes;     // [rows, K]
  std::vector<float> scales;          // [rows, K / 32]; NaN of what isn't finite
  std::vector<std::int32_t> offsets;  // [rows, K / 32]: 128 times the sum of the codes
};
void quantize_groups(const at::Tensor& x, GroupedRows& to);

}  // namespace vlm

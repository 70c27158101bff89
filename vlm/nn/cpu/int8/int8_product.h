// Matrix products in 8 bits: weights in 8 bits, inputs and results in float32.
//
//   x [M, K], weights [N, K], biases [N] or undefined ─► x Wᵀ + b [M, N] of each
//
// Each row of x is rounded to 8 bits with a scale of its own. Sums are exact integers, so a row's
// result doesn't depend on the rows beside it, nor on how many there are. oneDNN multiplies the
// blocks, in the order of panel_products.h. CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/int8/int8_weight.h"

namespace vlm {

struct Int8Map {
  const Int8Weight* weight;
  at::Tensor bias;  // [N] float32, or undefined
};

// Whether this processor and this build of LibTorch have products of 8-bit integers.
bool has_int8_products();

// x is contiguous and has enough rows to fill panels; int8_linear.h handles a few rows.
std::vector<at::Tensor> int8_panel_linears(const at::Tensor& x, const std::vector<Int8Map>& maps);

// gelu(x Wᵀ + b) and silu(x Gᵀ + g) · (x Uᵀ + u), computed while the sums are in the cache.
at::Tensor int8_panel_gelu(const at::Tensor& x, const Int8Map& map, Gelu kind);
at::Tensor int8_panel_gated(const at::Tensor& x, const Int8Map& gate, const Int8Map& up);

}  // namespace vlm

// Matrix products in bfloat16 whose sides and results are float32, beside weights in bfloat16.
//
//   panel_linears  x [M, K], weights [N, K], biases [N] or undefined ─► x Wᵀ + b [M, N] of each
//   panel_times    dy [M, N], weight [N, K]                          ─► dy W     [M, K]
//
// x and dy are rounded to bfloat16, sums are float32 and stay so. The blocks are oneDNN's
// (bfloat16_panels.h), whose right side has to be packed. For few rows of x that is x, which has to
// be rounded anyway, and panel_linears multiplies the transposed product, W xᵀ: blocks of the
// result are turned back, and the bias added, while they are in the nearest cache. For many rows it
// is W. The numbers are the same. LibTorch's linear on rounded inputs passes over both tensors for
// every one of these steps. CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/bfloat16_linear.h"

namespace vlm {

// Whether the two can be called: by this processor, for x or dy that is contiguous, on the CPU and
// has an even number of columns. Weights are contiguous.
bool can_multiply_in_panels(const at::Tensor& x);

std::vector<at::Tensor> panel_linears(const at::Tensor& x, const std::vector<WeightAndBias>& maps);
at::Tensor panel_times(const at::Tensor& dy, const at::Tensor& weight);

}  // namespace vlm

// Matrix products in bfloat16 whose sides and results are float32, beside weights in bfloat16.
//
//   panel_linear   x [M, K], weight [N, K], bias [N] or undefined ─► x Wᵀ + b [M, N]
//   panel_times    dy [M, N], weight [N, K]                       ─► dy W     [M, K]
//
// x and dy are rounded to bfloat16, sums are float32 and stay so. The blocks are oneDNN's
// (bfloat16_panels.h). panel_linear multiplies the transposed product, W xᵀ: W is then the side
// that is read as it lies in memory, and what is packed is x, which has to be rounded anyway.
// Blocks of the result are turned back, and the bias added, while they are in the nearest cache.
// LibTorch's linear on rounded inputs passes over both tensors for every one of these. CPU only, no
// gradients.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// Whether the two can be called: by this processor, on contiguous tensors on the CPU, with an even
// number of summands.
bool can_multiply_in_panels(const at::Tensor& x, const at::Tensor& weight);

at::Tensor panel_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
at::Tensor panel_times(const at::Tensor& dy, const at::Tensor& weight);

}  // namespace vlm

// Matrix products in bfloat16 whose sides and results are float32, beside weights in bfloat16.
//
//   panel_linears  x [M, K], weights [N, K], biases [N] or undefined ─► x Wᵀ + b [M, N] of each
//   panel_times    dy [M, N], weight [N, K]                          ─► dy W     [M, K]
//
// x and dy are rounded to bfloat16, sums are float32 and stay so. The blocks are oneDNN's
// (bfloat16_panels.h). panel_linears multiplies the transposed product, W xᵀ: W is then the side
// that is read as it lies in memory, and what is packed is x, which has to be rounded anyway.
// Blocks of the result are turned back, and the bias added, while they are in the nearest cache.
// LibTorch's linear on rounded inputs passes over both tensors for every one of these. Packing the
// weights instead and multiplying x Wᵀ takes longer: all of them would go through memory once more.
// CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"

namespace vlm {

// Whether these can be called: by this processor, for x or dy that is contiguous, on the CPU and
// has an even number of columns. Weights are contiguous.
bool can_multiply_in_panels(const at::Tensor& x);

std::vector<at::Tensor> panel_linears(const at::Tensor& x, const std::vector<WeightAndBias>& maps);

// fc2(gelu(fc1(x))) and down(silu(gate(x)) · up(x)), as one after the other would be up to the
// rounding of the activation. What is between never lies in memory as float32: a block of the first
// product, which is transposed, is a part of the packed x of the second. It has an even number of
// columns.
at::Tensor panel_gelu_mlp(const at::Tensor& x, const WeightAndBias& fc1, const WeightAndBias& fc2);
at::Tensor panel_gated_mlp(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up,
                           const WeightAndBias& down);

at::Tensor panel_times(const at::Tensor& dy, const at::Tensor& weight);

}  // namespace vlm

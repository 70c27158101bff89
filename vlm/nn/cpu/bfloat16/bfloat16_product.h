// Matrix products in bfloat16: weights in bfloat16, inputs and results in float32, or in bfloat16
// where the next product takes them so.
//
//   panel_linears  x [M, K], weights [N, K], biases [N] or undefined ─► x Wᵀ + b [M, N] of each
//   panel_times    dy [M, N], weight [N, K]                          ─► dy W     [M, K]
//
// x and dy are rounded to bfloat16, sums are float32 and stay so. The blocks are oneDNN's
// (bfloat16_panels.h). panel_linears multiplies the transposed product, W xᵀ: W is then read as it
// lies in memory, and x is packed, which has to be rounded anyway. Blocks of the result are
// transposed back, and the bias added, while they are in the first-level cache; LibTorch's linear
// makes a pass over memory for each of these steps. Packing the weights and multiplying x Wᵀ would
// take longer, because it reads and writes all weights once more. CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/cpu/gelu.h"

namespace vlm {

// Whether these functions can be used: the processor has such products, and x or dy is contiguous,
// on the CPU, with an even number of columns. Weights must be contiguous.
bool can_multiply_in_panels(const at::Tensor& x);

std::vector<at::Tensor> panel_linears(const at::Tensor& x, const std::vector<WeightAndBias>& maps);

// The same rounded to bfloat16.
std::vector<at::Tensor> narrow_panel_linears(const at::Tensor& x,
                                             const std::vector<WeightAndBias>& maps);

// What a result is multiplied with ([N], undefined: nothing) and added to, [M, N] contiguous.
struct AddedBranch {
  at::Tensor scale, residual;
};

// residual += scale · (x Wᵀ + b), and the same of the functions below. x may be in bfloat16.
void add_panel_linear(const at::Tensor& x, const WeightAndBias& map, const AddedBranch& to);
void add_panel_gelu_mlp(const at::Tensor& x, const WeightAndBias& fc1, const WeightAndBias& fc2,
                        Gelu kind, const AddedBranch& to);
void add_panel_gated_mlp(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up,
                         const WeightAndBias& down, const AddedBranch& to);

// fc2(gelu(fc1(x))) and down(silu(gate(x)) · up(x)), as the layers one by one give them, up to the
// rounding of the activation. The activation is never written as float32: a block of the first
// product, which is transposed, is packed at once as input of the second. It must have an even
// number of columns.
at::Tensor panel_gelu_mlp(const at::Tensor& x, const WeightAndBias& fc1, const WeightAndBias& fc2,
                          Gelu kind);
at::Tensor panel_gated_mlp(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up,
                           const WeightAndBias& down);

at::Tensor panel_times(const at::Tensor& dy, const at::Tensor& weight);

}  // namespace vlm

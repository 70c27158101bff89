// The MLPs of a block: two linear layers around a non-linear part, which are quicker together.
//
// Without a gradient and between products in bfloat16 or 8 bits, what is between the layers is made
// while its sums are in the cache (cpu/bfloat16_product.h, cpu/int8/int8_product.h). Elsewhere one
// layer follows the other.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

class Linear;

// fc2(gelu(fc1(x))), GELU by tanh. x [..., C] → [..., C']
at::Tensor gelu_mlp(const at::Tensor& x, const Linear& fc1, const Linear& fc2);

// down(silu(gate(x)) · up(x)): SwiGLU
at::Tensor gated_mlp(const at::Tensor& x, const Linear& gate, const Linear& up, const Linear& down);

}  // namespace vlm

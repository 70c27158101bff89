// The MLP of a block: linear layers with an activation between them, quicker here than layer by
// layer; and what a block adds to what it was given.
//
// Where no gradient is recorded and the products are in bfloat16 or 8 bits, the activation is
// computed while its inputs are in the processor's cache (cpu/bfloat16/bfloat16_product.h,
// cpu/int8/int8_product.h). Otherwise the layers are called one after the other.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/gelu.h"

namespace vlm {

class Linear;

// fc2(gelu(fc1(x))). x [..., C] → [..., C']
at::Tensor gelu_mlp(const at::Tensor& x, const Linear& fc1, const Linear& fc2, Gelu kind);

// down(silu(gate(x)) · up(x)): SwiGLU
at::Tensor gated_mlp(const at::Tensor& x, const Linear& gate, const Linear& up, const Linear& down);

// The same with gate and up as one layer, whose rows are gate's and then up's.
at::Tensor fused_gated_mlp(const at::Tensor& x, const Linear& gate_up, const Linear& down);

// residual + gated_mlp(x), for inference: the memory of `residual` may be written to, and on a GPU
// gate and up come to lie in one place (forward_joined).
at::Tensor add_gated_mlp(const at::Tensor& residual, const at::Tensor& x, const Linear& gate,
                         const Linear& up, const Linear& down);

// residual + scale · layer(x), and the same of gelu_mlp; scale [out], undefined: nothing. Without
// gradients the memory of `residual` may be written to. x may be in bfloat16, as self_attention
// gives it.
at::Tensor add_layer(const at::Tensor& residual, const at::Tensor& x, const Linear& layer,
                     const at::Tensor& scale = {});
at::Tensor add_gelu_mlp(const at::Tensor& residual, const at::Tensor& x, const Linear& fc1,
                        const Linear& fc2, Gelu kind, const at::Tensor& scale = {});

// The result of each layer for the same x in bfloat16; nothing where their products aren't in
// bfloat16, or round otherwise.
std::vector<at::Tensor> narrow_linears(const at::Tensor& x,
                                       const std::vector<const Linear*>& layers);

}  // namespace vlm

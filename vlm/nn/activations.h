// The non-linear parts of MLPs.
//
// Where no gradient is recorded, results take the memory of what they are made of. `product_dtype`
// is what the layers before and behind multiply in (layers.h).
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// SwiGLU's gate, silu(gate) · up; gate and up [..., F]. LibTorch's autograd would keep silu(gate)
// beside both; here it is computed again in backward. Gate and up that come from products in
// bfloat16 are kept for backward in bfloat16.
at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up,
                      at::ScalarType product_dtype = at::kFloat);

// GELU by tanh. Between products in bfloat16, and without a gradient, by an exponential within
// 3e-6 of the exact one, which is many times quicker on a CPU.
at::Tensor gelu_tanh(at::Tensor x, at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

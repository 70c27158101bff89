// The non-linear parts of MLPs.
//
// Where no gradient is recorded, results take the memory of what they are made of. `product_dtype`
// is what the layers before and behind multiply in (layers.h). Between products that round, and
// without a gradient, exponentials on a CPU are within 3e-6 of the exact ones, which is many times
// quicker.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// SwiGLU's gate, silu(gate) · up; gate and up [..., F]. LibTorch's autograd would keep silu(gate)
// beside both; here it is computed again in backward. Gate and up that come from products in
// bfloat16 are kept for backward in bfloat16.
at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up,
                      at::ScalarType product_dtype = at::kFloat);

// GELU by tanh.
at::Tensor gelu_tanh(at::Tensor x, at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

// The gate of a SwiGLU MLP: silu(gate) · up.
//
//   gate, up [..., F] ─► [..., F]
//
// LibTorch's autograd would keep silu(gate) beside both; here it is computed again in backward.
// Where no gradient is recorded the result takes the gate's memory. Gate and up that come from
// products in bfloat16 are kept for backward in bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up,
                      at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

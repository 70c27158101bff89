// The activations of MLPs.
//
// Where no gradient is recorded, the result overwrites its input. `product_dtype` is that of the
// layers around (layers.h). When it is not float32 and no gradient is recorded, exponentials on a
// CPU are approximated within 3e-6, which is less than the rounding of these layers and many times
// quicker.
#pragma once

#include <ATen/core/Tensor.h>

#include "vlm/nn/cpu/gelu.h"

namespace vlm {

// SwiGLU's gate, silu(gate) · up; gate and up [..., F]. For backward gate and up are kept, in
// bfloat16 if `product_dtype` is that; silu(gate) is computed again (LibTorch's autograd would keep
// it too).
at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up,
                      at::ScalarType product_dtype = at::kFloat);

at::Tensor gelu(at::Tensor x, Gelu kind, at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

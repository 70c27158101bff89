// RMS normalisation of rows in one pass, for inference in float32 on a CPU.
//
//   x [..., C], weight [C] ─► weight · x · rsqrt(mean(x²) + eps)
//
// RmsNorm's plain form makes seven passes and as many tensors, which for one new token costs more
// than the arithmetic. No gradients.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// True for float32 tensors on the CPU.
bool can_normalize_rows(const at::Tensor& x, const at::Tensor& weight);

at::Tensor normalize_rows(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace vlm

// RMS normalisation of rows in one pass, in float32 on a CPU.
//
//   x [..., C], weight [C] ─► weight · x · rsqrt(mean(x²) + eps)
//
// Written with LibTorch's operators it takes seven passes and as many tensors, which for a single
// token costs more than the arithmetic, and in training three of them are kept for backward. Here
// backward is written by hand too and keeps only x.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// True for float32 tensors on the CPU.
bool can_normalize_rows(const at::Tensor& x, const at::Tensor& weight);

// Gradients flow to x and the weight where they are recorded.
at::Tensor normalize_rows(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace vlm

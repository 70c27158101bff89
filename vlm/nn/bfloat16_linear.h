// y = x Wᵀ + b with W stored in bfloat16 and everything computed in float32.
//
//   x [..., K] float32, weight [N, K] bfloat16, bias [N] float32 or undefined ─► [..., N] float32
//
// A bfloat16 value is a float32 value, so the products are those of the weights converted to
// float32, and the result equals at::linear on them up to the order of summation. What is gained is
// memory: half the bytes to hold, and half to read for each generated token, which is what bounds
// decoding. A few rows of x are multiplied straight from the bfloat16 weights; more rows convert
// the weights a block at a time, into a buffer that stays in the processor's cache, for a matrix
// product. CPU only, no gradients: those are
// frozen_linear.h's.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

at::Tensor bfloat16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// dy W: dy [..., N] float32 ─► [..., K], what the gradient of x is.
at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight);

}  // namespace vlm

// y = x Wᵀ + b with W stored in bfloat16, beside activations in float32.
//
//   x [..., K] float32, weight [N, K] bfloat16, bias [N] float32 or undefined ─► [..., N] float32
//
// Products in float32: a bfloat16 value is a float32 value, so the products are those of the
// weights converted to float32, and the result equals at::linear on them up to the order of
// summation. What is gained is memory: half the bytes to hold, and half to read for each generated
// token, which is what bounds decoding. A few rows of x are multiplied straight from the bfloat16
// weights; more rows convert the weights a block at a time, into a buffer that stays in the
// processor's cache, for a matrix product.
//
// Products in bfloat16: more than a few rows of x are rounded to bfloat16 and summed in float32
// (bfloat16_product.h; elsewhere LibTorch's, which rounds the result too). On processors that have
// such products that takes less than half the time. A few rows are bound by reading the weights,
// and stay exact.
//
// CPU only, no gradients: those are frozen_linear.h's.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace vlm {

// Whether this processor multiplies bfloat16 matrices quicker than float32 ones.
bool has_bfloat16_products();

// A weight [N, K] bfloat16 and its bias [N] float32, or undefined.
struct WeightAndBias {
  at::Tensor weight, bias;
};

// What each of the maps makes of one x: prepared once, and the threads are called once for all.
std::vector<at::Tensor> bfloat16_linears(const at::Tensor& x,
                                         const std::vector<WeightAndBias>& maps,
                                         at::ScalarType product_dtype);

// `product_dtype`: what is multiplied, float32 or bfloat16.
at::Tensor bfloat16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           at::ScalarType product_dtype = at::kFloat);

// dy W: dy [..., N] float32 ─► [..., K], what the gradient of x is.
at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight,
                          at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

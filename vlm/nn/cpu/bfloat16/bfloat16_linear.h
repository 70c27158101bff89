// y = x Wᵀ + b with W stored in bfloat16, beside activations in float32.
//
//   x [..., K] float32, weight [N, K] bfloat16, bias [N] float32 or undefined ─► [..., N] float32
//
// Products in float32: a bfloat16 value is a float32 value, so the products are those of the
// weights converted to float32, and the result equals at::linear on them up to the order of
// summation. The gain is memory: half the bytes to hold, and half to read for each generated token,
// which takes most of the time of decoding. A few rows of x are multiplied straight from the
// bfloat16 weights; more rows convert the weights a block at a time, into a buffer that stays in
// the processor's cache, for a matrix product.
//
// Products in bfloat16: more than a few rows of x are rounded to bfloat16 and summed in float32
// (bfloat16_product.h; elsewhere LibTorch's, which rounds the result too). On processors that have
// such products that takes less than half the time. With a few rows the time goes into reading the
// weights, so their products stay in float32.
//
// CPU only; no gradients (frozen_linear.h has them).
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

// The result of each map for the same x. x is prepared once, and all maps run in one parallel pass.
std::vector<at::Tensor> bfloat16_linears(const at::Tensor& x,
                                         const std::vector<WeightAndBias>& maps,
                                         at::ScalarType product_dtype);

// `product_dtype`: dtype of the factors, float32 or bfloat16.
at::Tensor bfloat16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           at::ScalarType product_dtype = at::kFloat);

// The gradient of x: dy W, dy [..., N] float32 ─► [..., K].
at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight,
                          at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

// Products with frozen weights that are stored narrower than they are multiplied.
//
//   x [..., in] float, weight [out, in] in NF4 or bfloat16 ─► x Wᵀ + b [..., out], in x's dtype
//
// `product_dtype` is what is multiplied, forward and backward: x's dtype, or bfloat16 where a
// processor is quicker with it.
//
// The weight is widened where it is used, in forward and again in backward, and let go at once: a
// training step holds the stored form and one layer's (NF4) or a few rows' (bfloat16) wide form.
// Gradients flow to x and to the bias, never to the weight.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace vlm {

struct Nf4Weight;

// On any device.
at::Tensor nf4_linear(const at::Tensor& x, const std::shared_ptr<const Nf4Weight>& weight,
                      const at::Tensor& bias, at::ScalarType product_dtype);

// x float32 beside a bfloat16 weight, on a CPU (bfloat16_linear.h).
at::Tensor frozen_bfloat16_linear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias, at::ScalarType product_dtype);

}  // namespace vlm

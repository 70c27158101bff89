// Products with frozen weights that are stored in fewer bits than they are multiplied in.
//
//   x [..., in] float, weight [out, in] in NF4 or bfloat16 ─► x Wᵀ + b [..., out], in x's dtype
//
// `product_dtype` is the dtype of the factors, forward and backward: x's dtype, or bfloat16 where a
// processor is quicker with it.
//
// The weight is converted when it is used, in forward and again in backward, and the copy is freed
// at once. So a training step holds the stored weights and a converted copy of one layer (NF4) or
// of a few rows (bfloat16). Gradients flow to x and to the bias, never to the weight.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace vlm {

struct Nf4Weight;

// On any device.
at::Tensor nf4_linear(const at::Tensor& x, const std::shared_ptr<const Nf4Weight>& weight,
                      const at::Tensor& bias, at::ScalarType product_dtype);

// x float32 beside a bfloat16 weight. On a CPU by bfloat16_linear.h, elsewhere in float32 with the
// weight widened for the product.
at::Tensor frozen_bfloat16_linear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias, at::ScalarType product_dtype);

}  // namespace vlm

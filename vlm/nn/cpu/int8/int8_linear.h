// y = x Wᵀ + b with W stored in 8 bits (int8_weight.h), beside activations in float32.
//
//   x [..., K] float32, weight [N, K], bias [N] float32 or undefined ─► [..., N] float32
//
// On processors with products of 8 bits every row of x is rounded to 8 bits too, with a scale of
// its own, and sums are exact integers, so a row's result doesn't depend on the other rows. On
// other processors x stays float32 and only the weights are rounded, which saves memory and the
// time to read it.
//
// CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/int8/int8_product.h"

namespace vlm {

// The result of each map for the same x. `with_products`: whether x is rounded to 8 bits too.
std::vector<at::Tensor> int8_linears(const at::Tensor& x, const std::vector<Int8Map>& maps,
                                     bool with_products = has_int8_products());

// Whether rows [M, K] are enough for int8_product.h, which computes activations while their inputs
// are in the cache.
bool fills_int8_panels(const at::Tensor& rows);

}  // namespace vlm

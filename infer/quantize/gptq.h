// Codes of 4 bits that keep a layer's results near, by what the layer is multiplied with.
//
//   weight [out, in], Σ x xᵀ [in, in] ─► gptq_codes ─► EvenCodes
//
// Scales are those of search_even_codes, weighted by the diagonal. Then inputs are coded one by
// one, the largest of the diagonal first, and what rounding left is taken off the inputs that
// aren't coded yet. Reference: GPTQ (arXiv 2210.17323) with static groups.
#pragma once

#include <ATen/core/Tensor.h>

#include "vlm/nn/cpu/int4/even_codes.h"

namespace vlm::infer {

EvenCodes gptq_codes(const at::Tensor& weight, const at::Tensor& sums);

// Σ |(W − coded) x|² over Σ |W x|²; `sums` undefined: of all inputs alike.
double output_error(const at::Tensor& weight, const at::Tensor& coded, const at::Tensor& sums);

}  // namespace vlm::infer

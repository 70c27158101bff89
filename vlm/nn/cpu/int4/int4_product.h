// Matrix products with weights in 4 bits, for many rows of x: in 8 bits, as those of
// int8_product.h.
//
//   x [M, K], weights [N, K], biases [N] or undefined ─► x Wᵀ + b [M, N] of each
//
// Some outputs of the weights at a time become 8 bits, with a scale an output, in a buffer that
// stays in the cache (code · level · the group's scale over the output's, rounded), and are
// multiplied with all panels of x. A weight is so rounded once more, to 1/127 of the largest of its
// output. Needs has_int8_products(). CPU only, no gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/nn/cpu/gelu.h"
#include "vlm/nn/cpu/int4/int4_weight.h"

namespace vlm {

struct Int4Map {
  const Int4Weight* weight;
  at::Tensor bias;  // [N] float32, or undefined
};

// x is contiguous and has enough rows to fill panels; int4_linear.h handles a few rows.
std::vector<at::Tensor> int4_panel_linears(const at::Tensor& x, const std::vector<Int4Map>& maps);

// gelu(x Wᵀ + b) and silu(x Gᵀ + g) · (x Uᵀ + u), computed while the sums are in the cache.
at::Tensor int4_panel_gelu(const at::Tensor& x, const Int4Map& map, Gelu kind);
at::Tensor int4_panel_gated(const at::Tensor& x, const Int4Map& gate, const Int4Map& up);

// The 8 bits that outputs from `first` on become, plus 128: [count, K rounded up to 64]. Both
// numbers are multiples of 16. What int8_product.h would multiply.
void unpack_int4(const Int4Weight& weight, std::int64_t first, std::int64_t count,
                 std::uint8_t* codes);

}  // namespace vlm

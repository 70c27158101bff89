// Attention with products in bfloat16, for processors that are quicker with those.
//
//   q [B, H, T, D], k and v [B, K, S, D] ─► softmax(q kᵀ / √D) v [B, H, T, D]
//
// All of them are float32, or all are bfloat16.
// Queries, keys, values and the softmax's weights are rounded to bfloat16 where they are
// multiplied; sums, the softmax and the result are float32. Query heads share key and value heads
// in groups, and no more than a block of scores is ever held (flash attention). The products are
// oneDNN's, called on blocks that stay in a core's cache. No gradients. Reference: Dao et al.,
// FlashAttention.
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// Whether this processor and this build of LibTorch have products in bfloat16.
bool can_attend_in_bfloat16(const at::Tensor& q);

// `is_causal`: query i sees the keys 0 … S - T + i. The result lies in memory as [B, T, H, D].
at::Tensor bfloat16_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool is_causal);

}  // namespace vlm

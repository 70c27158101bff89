// Attention of grouped queries: query heads share key and value heads in groups.
//
//   q [B, H, T, D], k and v [B, K, S, D] ─► [B, H, T, D], head h looking at kv head h / (H / K)
//
// One call of LibTorch's scaled_dot_product_attention, or of bfloat16_attention. Reference:
// sdpa_attention_forward, transformers 5.23.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vlm {

// [B, K, S, D] → [B, K·groups, S, D], each head repeated `groups` times in a row.
at::Tensor repeat_heads(const at::Tensor& t, std::int64_t groups);

// `mask` [B, 1, T, S] bool, true = may look (undefined: by `is_causal` alone). A causal call has
// T = S. With `product_dtype` bfloat16, many unmasked queries are multiplied in it where the
// processor is quicker so and no gradient is recorded.
at::Tensor grouped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& mask, bool is_causal,
                             at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

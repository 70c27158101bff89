// Grouped-query attention: groups of query heads share a key head and a value head.
//
//   q [B, H, T, D], k and v [B, K, S, D] ─► [B, H, T, D], query head h with kv head h / (H / K)
//
// One call of LibTorch's scaled_dot_product_attention, or of bfloat16_attention. Reference:
// sdpa_attention_forward, transformers 5.23.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "vlm/nn/gpu/segment_flash.h"

namespace vlm {

// [B, K, S, D] → [B, K·groups, S, D], each head repeated `groups` times in a row.
at::Tensor repeat_heads(const at::Tensor& t, std::int64_t groups);

// `mask` [B, 1, T, S] bool, true = the query may see the key; undefined: `is_causal` alone decides.
// In a causal call without mask query i sees the keys 0 … S - T + i. With `product_dtype` bfloat16,
// calls with many queries and no mask are computed in bfloat16 where that is quicker and no
// gradient is recorded.
at::Tensor grouped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& mask, bool is_causal,
                             at::ScalarType product_dtype = at::kFloat);

class Linear;

// An encoder's projections: three layers, or one whose outputs are those of all three.
struct SelfProjections {
  const Linear *q, *k = nullptr, *v = nullptr;
  std::int64_t heads;
};

// x [B, T, C] → [B, T, C], every row of a sequence seeing all of it, or what `mask` [B, 1, 1, T]
// lets it. Between products in bfloat16 the result is in bfloat16, as the next one rounds it so.
at::Tensor self_attention(const at::Tensor& x, const SelfProjections& layers,
                          const at::Tensor& mask);

// Queries, keys and values of rows of several segments, one behind the other.
struct SegmentedRows {
  at::Tensor q, k, v;  // [1, H, P, D]
};

// Lengths of segments, which the layers of a pass share. They add up to P.
class SegmentLengths {
 public:
  SegmentLengths() = default;
  explicit SegmentLengths(std::vector<std::int64_t> lengths) : lengths_(std::move(lengths)) {}

  const std::vector<std::int64_t>& lengths() const { return lengths_; }
  // Made when they are first asked for, by one upload.
  const SegmentPlaces& places(at::Device device) const;

 private:
  std::vector<std::int64_t> lengths_;
  mutable SegmentPlaces places_;
};

// Each segment sees all of itself and nothing else. Those of one length that follow each other are
// one call, and on a GPU all, where its flash attention takes them. → [1, H, P, D]
at::Tensor segment_attention(const SegmentedRows& rows, const SegmentLengths& segments,
                             at::ScalarType product_dtype = at::kFloat);

}  // namespace vlm

// Attention from a few new tokens of each sequence to the keys and values that a cache holds.
//
//   q [B, H, T, D], k and v [B, K, T, D], float32 ─► softmax(q · all keysᵀ / √D) all values
//
// Decoding: few queries, many keys, so reading the keys is most of the work. They are taken in
// chunks, each by one thread; a prefix that rows share is read once for all of them, and a query's
// chunks are joined at the end (flash decoding). Every row sees its own keys and no padding, so
// what a row gets doesn't depend on the rows beside it. No gradients. Reference: Dao et al.,
// Flash-Decoding for long-context inference.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// Keys and values of one layer, as KvCache lays them out.
struct CachedLayer {
  at::Tensor prefix_k, prefix_v;  // [G, K, P, D]
  at::Tensor tail_k, tail_v;      // [R, K, S, D]
};

// New tokens of one sequence: those of row b of q, k and v.
struct CachedTokens {
  std::int64_t group = 0, row = 0;    // where its prefix and its tail are
  std::int64_t prefix = 0, tail = 0;  // how long they are before the new tokens
  std::int64_t count = 1;             // of the new tokens; the others of the row are padding
};

// Whether these are tokens for cached_attention: a few a sequence, in float32 on a CPU.
bool can_attend_to_cache(const at::TensorOptions& options, std::int64_t tokens,
                         std::int64_t head_dim);

// Stores k and v behind the tails, which have room, and attends. Of `tokens`, those that share a
// group lie side by side. → [B, H, T, D], in memory [B, T, H, D]; zeros for padding.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const CachedLayer& layer, const std::vector<CachedTokens>& tokens);

}  // namespace vlm

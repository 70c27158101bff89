// Attention from a few new tokens of each sequence to the keys and values that a cache holds.
//
//   q [B, H, T, D], k and v [B, K, T, D], float32 ─► softmax(q · all keysᵀ / √D) all values
//
// The cache holds them in float32, bfloat16 or 8 bits (kv_rows.h); sums are float32.
// In decoding there are few queries and many keys, so most of the time goes into reading the keys.
// They are cut into chunks, one thread a chunk; a prefix that rows share is read once for all of
// them, and the results of a query's chunks are joined at the end (flash decoding). Every row sees
// its own keys and no padding, so its result doesn't depend on the other rows. No gradients.
// Reference: Dao et al., Flash-Decoding for long-context inference.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// Keys and values of one layer, as KvCache lays them out, in rows as kv_rows.h has them.
struct CachedLayer {
  at::Tensor prefix_k, prefix_v;  // [G, K, P, W]
  at::Tensor tail_k, tail_v;      // [R, K, S, W]
};

// The new tokens of one sequence: entry b of the list describes row b of q, k and v.
struct CachedTokens {
  std::int64_t group = 0, row = 0;    // where its prefix and its tail are
  std::int64_t prefix = 0, tail = 0;  // how long they are before the new tokens
  std::int64_t count = 1;             // of the new tokens; the others of the row are padding
};

// Whether cached_attention takes this case: a few new tokens a sequence, float32, on a CPU.
bool can_attend_to_cache(const at::TensorOptions& options, std::int64_t tokens,
                         std::int64_t head_dim);

// Stores k and v at the end of the tails, which must have room, and computes the attention. In
// `tokens`, entries of the same group stand next to each other. → [B, H, T, D], laid out as [B, T,
// H, D]; zeros for padding.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const CachedLayer& layer, const std::vector<CachedTokens>& tokens);

}  // namespace vlm

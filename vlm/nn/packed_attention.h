// Attention of several samples packed into one row, for training: each sample sees itself, and
// perhaps a prefix in the same row that it shares with other samples.
//
//   q [1, H, T, D], k and v [1, K, T, D], segments that cover 0 … T ─► [1, H, T, D]
//
// One call of flash attention a segment, so neither time nor memory grows with T². A segment is
// causal within itself and sees all of its prefix, an earlier segment: so several questions about
// one picture share a single copy of the picture's tokens. On a CPU backward is written by hand: it
// keeps q, k and v (repeating the heads of k and v again, instead of keeping the repeated ones) and
// writes all segments into one tensor. On other devices LibTorch's autograd does it. Reference: a
// block-diagonal causal mask, with the prefix's columns open.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// A part of a packed row, in tokens. Its positions continue those of its prefix.
struct Segment {
  std::int64_t begin = 0;
  std::int64_t length = 0;
  std::int64_t prefix_begin = 0;
  std::int64_t prefix_length = 0;  // 0: sees only itself
};

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Segment>& segments);

// Rows of equal length, causal, as grouped_attention computes them: q [B, H, T, D].
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            at::ScalarType product_dtype = at::kFloat);

// [1, T] int64: 0, 1, … within each segment, counted on from its prefix.
at::Tensor packed_positions(const std::vector<Segment>& segments);

}  // namespace vlm

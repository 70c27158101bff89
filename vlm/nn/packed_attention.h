// Attention of several samples packed into one row, for training: each sample sees itself, and
// perhaps a prefix in the same row that it shares with other samples.
//
//   q [1, H, T, D], k and v [1, K, T, D], a row of segments that cover 0 … T ─► [1, H, T, D]
//
// One call of flash attention a segment, so neither time nor memory grows with T²; where a GPU's
// flash attention takes the lengths of all segments, one call altogether. A segment is causal
// within itself and sees all of its prefix, an earlier segment: so several questions about one
// picture share a single copy of the picture's tokens. On a CPU backward is written by hand: it
// keeps q, k and v (repeating the heads of k and v again, instead of keeping the repeated ones) and
// writes all segments into one tensor. On other devices LibTorch's autograd does it. Reference: a
// block-diagonal causal mask, with the prefix's columns open.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "vlm/nn/gpu/segment_flash.h"

namespace vlm {

// A part of a packed row, in tokens. Its positions continue those of its prefix.
struct Segment {
  std::int64_t begin = 0;
  std::int64_t length = 0;
  std::int64_t prefix_begin = 0;
  std::int64_t prefix_length = 0;  // 0: sees only itself
};

// The segments of a row, and their masks and places, which all layers of a pass share.
class PackedRow {
 public:
  explicit PackedRow(std::vector<Segment> segments)
      : segments_(std::move(segments)), masks_(segments_.size()) {}

  const std::vector<Segment>& segments() const { return segments_; }
  // What is added to the scores of the i-th segment's queries: 0 where they may look, else -∞,
  // [1, 1, length, prefix + length]. Undefined without a prefix. Made when it is first asked for.
  const at::Tensor& mask(std::size_t i, const at::TensorOptions& options) const;
  // Made when they are first asked for, by one upload.
  const SegmentPlaces& places(at::Device device) const;

 private:
  std::vector<Segment> segments_;
  mutable std::vector<at::Tensor> masks_;
  mutable SegmentPlaces places_;
};

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::shared_ptr<const PackedRow>& row);

// Rows of equal length, causal, as grouped_attention computes them: q [B, H, T, D].
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            at::ScalarType product_dtype = at::kFloat);

// [1, T] int64: 0, 1, … within each segment, counted on from its prefix.
at::Tensor packed_positions(const std::vector<Segment>& segments);

}  // namespace vlm

// Flash attention of a GPU over segments of several lengths that lie one behind the other in one
// row, all in one call.
//
//   q [1, H, T, D], k and v [1, K, S, D], where the segments lie ─► [1, H, T, D]
//
// In half types, on cards that have it; callers ask first. Reference: varlen_attn, torch 2.11.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// Where the segments lie, on a device.
struct SegmentPlaces {
  at::Tensor queries, keys;  // [n + 1] int32: where each begins, and the end of the last
  std::int64_t most_queries = 0, most_keys = 0;
  // Of the row, [S'], the tokens whose keys the segments see one behind the other; undefined: the
  // row as it is.
  at::Tensor seen;
};

// Segments that see themselves alone.
SegmentPlaces place_segments(const std::vector<std::int64_t>& lengths, at::Device device);

// Whether the device has flash attention for these, of whatever lengths.
bool can_attend_in_segments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

// Causal is meant from the end: the last query of a segment sees all of its keys.
at::Tensor attend_in_segments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const SegmentPlaces& places, bool is_causal);

}  // namespace vlm

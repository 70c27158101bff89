// Attention of rows in a grid, R of each of n groups, over a prefix that a group's rows share and
// the tail of each row: one softmax over both, and the prefix is read once for all rows of a group.
// By products of all rows at once: on a GPU, and on a CPU where many tokens come together.
//
//   q [n·R, H, T, D], prefix [n, K, P, D], tails [n·R, K, S, D] ─► [n·R, H, T, D]
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

struct GridKeys {
  at::Tensor prefix_k, prefix_v;  // [n, K, P, D]
  at::Tensor tail_k, tail_v;      // [n·R, K, S, D]
};

// What can't be seen; at most one of them is defined.
struct GridMask {
  at::Tensor is_hidden;  // [n, R, T, P + S] bool
  at::Tensor in_step;    // [n·R, K, H / K, P + S] bool, contiguous, where T is 1
};

at::Tensor grid_attention(const at::Tensor& q, const GridKeys& keys, const GridMask& mask);

}  // namespace vlm

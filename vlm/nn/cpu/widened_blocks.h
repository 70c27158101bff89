// Products with weights that are stored narrow, by LibTorch: a block of them at a time is widened
// to float32, into a buffer that stays in the cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace vlm {

// A matrix [n, k] that can be had as float32: widen(first row, count, to). Any thread calls it.
struct NarrowMatrix {
  std::int64_t n, k;
  std::function<void(std::int64_t, std::int64_t, float*)> widen;
};

// Calls work(block [count, k] float32, first row, count) for blocks that cover the matrix.
void over_widened_blocks(const NarrowMatrix& matrix,
                         const std::function<void(const at::Tensor& block, std::int64_t first,
                                                  std::int64_t count)>& work);

// x [M, k] float32 ─► x Wᵀ + b [M, n]; bias [n] float32 or undefined
at::Tensor multiply_widened(const at::Tensor& x, const NarrowMatrix& matrix,
                            const at::Tensor& bias);

}  // namespace vlm

// Products with weights stored in few bits, by LibTorch: the weights are converted to float32 block
// by block, in a buffer that stays in the cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace vlm {

// A matrix [n, k] whose rows can be converted to float32: widen(first row, count, to), called from
// any thread.
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

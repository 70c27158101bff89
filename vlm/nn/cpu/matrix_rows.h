// Activations of any leading shape as the rows of a matrix, and back.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/_unsafe_view.h>

#include <cstdint>
#include <vector>

namespace vlm {

// [..., K] → [M, K], contiguous
inline at::Tensor as_rows(const at::Tensor& x) {
  return x.reshape({-1, x.size(-1)}).contiguous();
}

// y [M, N] in the leading shape of x [..., K]: [..., N]. Autograd doesn't see it as a view, so it
// may be added to in place.
inline at::Tensor shaped_like(const at::Tensor& x, const at::Tensor& y) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = y.size(1);
  return at::_unsafe_view(y, shape);
}

}  // namespace vlm

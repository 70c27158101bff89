// Products in bfloat16 by oneDNN's kernels for small blocks, and the layout of their right-hand
// matrix.
//
// The left-hand matrix is row-major. The right-hand one is packed in panels of at most 64 columns,
// with its rows in pairs: [rows / 2, columns, 2]. Packing takes rows of float32 and rounds them, or
// rows that are in bfloat16 already.
// CPU only.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "vlm/nn/cpu/panels/panel_products.h"

namespace vlm {

// Rows in memory: `rows` of `depth` values, `stride` apart.
template <typename Value>
struct RowsOf {
  const Value* data;
  std::int64_t rows, depth, stride;

  RowsOf from(std::int64_t first, std::int64_t most) const {
    return {data + first * stride, std::min(most, rows - first), depth, stride};
  }
};
using FloatRows = RowsOf<float>;
using NarrowRows = RowsOf<std::uint16_t>;  // bfloat16

// Whether this processor and this build of LibTorch have these kernels, and they read panels as
// they are packed here.
bool has_panel_products();

// rowsᵀ in panels of `width` columns (a multiple of 16, at most 64): row r becomes column r % width
// of panel r / width. A panel takes width × depth values, zeros behind the last row; `depth` is
// even. On the calling thread.
void pack_transposed(const FloatRows& rows, std::int64_t width, std::uint16_t* panels);
void pack_transposed(const NarrowRows& rows, std::int64_t width, std::uint16_t* panels);

// Rows in bfloat16, `step` values from one to the next.
void round_rows(const FloatRows& rows, std::uint16_t* to, std::int64_t step);
void round_rows(const NarrowRows& rows, std::uint16_t* to, std::int64_t step);

// Pointer to the values of a bfloat16 tensor.
inline const std::uint16_t* words_of(const at::Tensor& t) {
  return static_cast<const std::uint16_t*>(t.const_data_ptr());
}
inline std::uint16_t* words_of(at::Tensor& t) {
  return static_cast<std::uint16_t*>(t.mutable_data_ptr());
}
inline const c10::BFloat16* as_bfloat16(const std::uint16_t* words) {
  return reinterpret_cast<const c10::BFloat16*>(words);
}

}  // namespace vlm

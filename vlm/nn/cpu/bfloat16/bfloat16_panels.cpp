#include "vlm/nn/cpu/bfloat16/bfloat16_panels.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kPairs = 2 * kLanes;  // values of a row that are packed at once

// 32 values of a row as 16 words, the earlier value of each pair in the lower half.
VLM_INLINE Words load_pairs(const float* from) {
  const auto [earlier, later] =
      split_pairs(load_lanes<Words>(from), load_lanes<Words>(from + kLanes));
  return round_pairs(earlier, later);
}

VLM_INLINE Words load_pairs(const std::uint16_t* from) {
  return load_lanes<Words>(from);
}

VLM_INLINE std::uint16_t as_narrow(float value) {
  return round_to_bfloat16(value);
}
VLM_INLINE std::uint16_t as_narrow(std::uint16_t value) {
  return value;
}

// 16 columns of a panel: `count` of them rows from `first` on, the rest zero.
template <typename Value>
VLM_INLINE void pack_columns(const RowsOf<Value>& rows, std::int64_t first, std::int64_t count,
                             std::int64_t width, std::uint16_t* to) {
  const Value* from = rows.data + first * rows.stride;
  std::int64_t d = 0;
  for (; d + kPairs <= rows.depth; d += kPairs) {
    Words block[kLanes] = {};
    for (std::int64_t i = 0; i < count; ++i) block[i] = load_pairs(from + i * rows.stride + d);
    transpose_lanes(block);
    for (std::int64_t i = 0; i < kLanes; ++i) {
      std::memcpy(to + (d + 2 * i) * width, &block[i], sizeof block[i]);
    }
  }
  for (; d < rows.depth; ++d) {
    for (std::int64_t i = 0; i < kLanes; ++i) {
      to[d / 2 * 2 * width + i * 2 + d % 2] =
          i < count ? as_narrow(from[i * rows.stride + d]) : std::uint16_t{0};
    }
  }
}

template <typename Value>
VLM_INLINE void pack_panels(const RowsOf<Value>& rows, std::int64_t width, std::uint16_t* panels) {
  for (std::int64_t first = 0; first < rows.rows; first += width) {
    std::uint16_t* panel = panels + first * rows.depth;
    for (std::int64_t column = 0; column < width; column += kLanes) {
      const std::int64_t left = std::max<std::int64_t>(rows.rows - first - column, 0);
      pack_columns(rows, first + column, std::min<std::int64_t>(left, kLanes), width,
                   panel + column * 2);
    }
  }
}

// Multiplies small integers, which bfloat16 holds exactly.
bool is_product_right() {
  constexpr std::int64_t kDepth = 4;
  std::vector<float> values(kPanel * kDepth), found(kPanel * kPanel);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 13) - 6;
  const FloatRows rows{.data = values.data(), .rows = kPanel, .depth = kDepth, .stride = kDepth};
  std::vector<std::uint16_t> left(values.size()), right(values.size());
  round_rows(rows, left.data(), kDepth);
  pack_transposed(rows, kPanel, right.data());
  try {
    at::native::cpublas::brgemm(kPanel, kPanel, kDepth, kDepth, kPanel, kPanel, /*add_C=*/false,
                                as_bfloat16(left.data()), as_bfloat16(right.data()), found.data());
    at::native::cpublas::brgemm_release();
  } catch (const std::exception&) {
    return false;
  }
  for (std::size_t i = 0; i < kPanel; ++i) {
    for (std::size_t j = 0; j < kPanel; ++j) {
      float sum = 0;
      for (std::size_t d = 0; d < kDepth; ++d) {
        sum += values[i * kDepth + d] * values[j * kDepth + d];
      }
      if (found[i * kPanel + j] != sum) return false;
    }
  }
  return true;
}

}  // namespace

bool has_panel_products() {
  static const bool is_usable = has_bfloat16_products() && is_product_right();
  return is_usable;
}

VLM_CLONES void pack_transposed(const FloatRows& rows, std::int64_t width, std::uint16_t* panels) {
  pack_panels(rows, width, panels);
}

VLM_CLONES void pack_transposed(const NarrowRows& rows, std::int64_t width, std::uint16_t* panels) {
  pack_panels(rows, width, panels);
}

VLM_CLONES void round_rows(const FloatRows& rows, std::uint16_t* to, std::int64_t step) {
  for (std::int64_t i = 0; i < rows.rows; ++i, to += step) {
    const float* from = rows.data + i * rows.stride;
    for (std::int64_t d = 0; d < rows.depth; ++d) to[d] = round_to_bfloat16(from[d]);
  }
}

void round_rows(const NarrowRows& rows, std::uint16_t* to, std::int64_t step) {
  for (std::int64_t i = 0; i < rows.rows; ++i) {
    std::copy_n(rows.data + i * rows.stride, rows.depth, to + i * step);
  }
}

}  // namespace vlm

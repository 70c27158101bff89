// x in 8 bits as panels, and what becomes of the integer sums of products with them. Shared by
// weights in 8 and in 4 bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "vlm/nn/cpu/panel_products.h"

namespace vlm {

struct PackedPanel {
  std::int8_t* codes;     // [depth / 4, width, 4]
  float* scales;          // [width]
  std::int32_t* offsets;  // [width]: what the weights' 128 adds to the sums
};

// x [M, K] as right sides, a panel after the other.
class QuantizedPanels {
 public:
  explicit QuantizedPanels(const at::Tensor& x);

  const PanelLayout& layout() const { return layout_; }
  PackedPanel panel(std::int64_t i) const {
    return {.codes = static_cast<std::int8_t*>(codes_.data_ptr()) + i * kPanel * layout_.depth,
            .scales = static_cast<float*>(scales_.data_ptr()) + i * kPanel,
            .offsets = static_cast<std::int32_t*>(offsets_.data_ptr()) + i * kPanel};
  }

 private:
  PanelLayout layout_;
  at::Tensor codes_, scales_, offsets_;
};

// A weight's scales and biases from an output on.
struct CodeOutputs {
  const float* scales;
  const float* bias;  // or null
};

struct ScaledColumns {
  Floats scales, biases;
};

VLM_INLINE ScaledColumns load_columns(const CodeOutputs& outputs, std::int64_t n,
                                      std::int64_t count) {
  return {.scales = load_partial(outputs.scales + n, count),
          .biases = load_partial(outputs.bias ? outputs.bias + n : nullptr, count)};
}

VLM_INLINE Floats scale_columns(Floats sums, const ScaledColumns& columns) {
  return sums * columns.scales + columns.biases;
}

// The integer sums of a block as numbers, up to the weights' scales.
struct CodeSums {
  const std::int32_t* data;
  std::int64_t step, width;
  PackedPanel x;

  VLM_INLINE Floats load(int block, std::int64_t n, std::int64_t m) const {
    const Ints sums =
        load_lanes<Ints>(data + block * step + n * width + m) - load_lanes<Ints>(x.offsets + m);
    return __builtin_convertvector(sums, Floats) * load_lanes<Floats>(x.scales + m);
  }
};

struct LinearSums : CodeSums {
  static constexpr int kBlocks = 1;
  CodeOutputs outputs;

  VLM_INLINE ScaledColumns columns(std::int64_t n, std::int64_t count) const {
    return load_columns(outputs, n, count);
  }
  VLM_INLINE static Floats finish(const ScaledColumns& columns,
                                  const Floats (&values)[kBlocks][kLanes], std::int64_t i) {
    return scale_columns(values[0][i], columns);
  }
};

template <Gelu Kind>
struct GeluSums : LinearSums {
  VLM_INLINE static Floats finish(const ScaledColumns& columns,
                                  const Floats (&values)[kBlocks][kLanes], std::int64_t i) {
    return fast_gelu<Kind>(scale_columns(values[0][i], columns));
  }
};

struct GatedSums : CodeSums {
  static constexpr int kBlocks = 2;
  CodeOutputs gate, up;

  struct Columns {
    ScaledColumns gate, up;
  };
  VLM_INLINE Columns columns(std::int64_t n, std::int64_t count) const {
    return {.gate = load_columns(gate, n, count), .up = load_columns(up, n, count)};
  }
  VLM_INLINE static Floats finish(const Columns& columns, const Floats (&values)[kBlocks][kLanes],
                                  std::int64_t i) {
    return fast_silu(scale_columns(values[0][i], columns.gate)) *
           scale_columns(values[1][i], columns.up);
  }
};

// A block's sums, and where its results go.
CodeSums sums_of(const QuantizedPanels& x, const ProductBlock<std::int32_t>& block);
BlockTarget target_of(const QuantizedPanels& x, const ProductBlock<std::int32_t>& block,
                      at::Tensor& y);

void store_sums(const LinearSums& sums, const BlockTarget& to);
void store_sums(const LinearSums& sums, const BlockTarget& to, Gelu kind);  // gelu of each
void store_sums(const GatedSums& sums, const BlockTarget& to);

}  // namespace vlm

// x in 8 bits as panels, and what becomes of the integer sums of products with them. Shared by
// weights in 8 and in 4 bits.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <vector>

#include "vlm/nn/cpu/panels/panel_products.h"

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

// What is multiplied with panels of x [M, K], for weights of a `Format` with static members:
//   Map                                 a weight and its bias
//   scales(weight)                      [N] float32, of its outputs
//   multiply(x, maps, together, store)  W xᵀ of each weight, `together` of one shape at a time;
//                                       store(block) gets the sums
template <typename Format>
struct PanelProducts {
  using Map = typename Format::Map;
  using Block = ProductBlock<std::int32_t>;

  // x Wᵀ + b of each
  static std::vector<at::Tensor> linears(const at::Tensor& x, const std::vector<Map>& maps) {
    const QuantizedPanels panels(x);
    std::vector<at::Tensor> results;
    for (const Map& map : maps) results.push_back(empty_result(x, map));
    Format::multiply(panels, maps, 1, [&](const Block& block) {
      store_sums(LinearSums{sums_of(panels, block), outputs_of(maps[block.map], block.first)},
                 target_of(panels, block, results[block.map]));
    });
    return results;
  }

  // gelu(x Wᵀ + b)
  static at::Tensor gelu(const at::Tensor& x, const Map& map, Gelu kind) {
    const QuantizedPanels panels(x);
    at::Tensor y = empty_result(x, map);
    Format::multiply(panels, {map}, 1, [&](const Block& block) {
      store_sums(LinearSums{sums_of(panels, block), outputs_of(map, block.first)},
                 target_of(panels, block, y), kind);
    });
    return y;
  }

  // silu(x Gᵀ + g) · (x Uᵀ + u)
  static at::Tensor gated(const at::Tensor& x, const Map& gate, const Map& up) {
    const QuantizedPanels panels(x);
    at::Tensor y = empty_result(x, gate);
    Format::multiply(panels, {gate, up}, 2, [&](const Block& block) {
      store_sums(GatedSums{sums_of(panels, block), outputs_of(gate, block.first),
                           outputs_of(up, block.first)},
                 target_of(panels, block, y));
    });
    return y;
  }

 private:
  static CodeOutputs outputs_of(const Map& map, std::int64_t first) {
    return {
        .scales = Format::scales(*map.weight).template const_data_ptr<float>() + first,
        .bias = map.bias.defined() ? map.bias.template const_data_ptr<float>() + first : nullptr};
  }
  static at::Tensor empty_result(const at::Tensor& x, const Map& map) {
    return at::empty({x.size(0), map.weight->out_features()}, at::kFloat);
  }
};

}  // namespace vlm

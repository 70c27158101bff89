#include "vlm/nn/cpu/bfloat16/bfloat16_product.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vlm/nn/cpu/bfloat16/bfloat16_panels.h"
#include "vlm/nn/cpu/panels/panel_products.h"

namespace vlm {
namespace {

constexpr std::int64_t kDepth = kDepthBytes / 2;
constexpr std::int64_t kRoundedValues = 65536;  // that a thread rounds at a time

// (block[n, m] + bias[n]) · scale[n]
struct BiasedSums {
  static constexpr int kBlocks = 1;
  const float* data;  // [n, width]
  std::int64_t width;
  const float *bias, *scale;  // of the block's first n, or null

  struct Columns {
    Floats biases, scales;
  };
  VLM_INLINE Floats load(int /*block*/, std::int64_t n, std::int64_t m) const {
    return load_lanes<Floats>(data + n * width + m);
  }
  VLM_INLINE Columns columns(std::int64_t n, std::int64_t count) const {
    return {load_partial(bias ? bias + n : nullptr, count),
            scale ? load_partial(scale + n, count) : Floats{} + 1.0F};
  }
  VLM_INLINE static Floats finish(const Columns& columns, const Floats (&values)[1][kLanes],
                                  std::int64_t i) {
    return (values[0][i] + columns.biases) * columns.scales;
  }
};

VLM_CLONES void store_biased(const BiasedSums& sums, const BlockTarget& to) {
  store_transposed(sums, to);
}
VLM_CLONES void store_added(const BiasedSums& sums, const BlockTarget& to) {
  store_transposed<AddedResults>(sums, to);
}
VLM_CLONES void store_narrow(const BiasedSums& sums, const BlockOf<std::uint16_t>& to) {
  store_transposed<NarrowResults>(sums, to);
}

// A panel of `columns` columns of a matrix in bfloat16, an even number of `rows`, `stride` apart.
VLM_CLONES void pack_panel(const std::uint16_t* from, std::int64_t rows, std::int64_t columns,
                           std::int64_t stride, std::uint16_t* to) {
  for (std::int64_t n = 0; n < rows; n += 2, to += 2 * kPanel) {
    const std::uint16_t* first = from + n * stride;
    const std::uint16_t* second = first + stride;
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::uint32_t pair = first[k] | static_cast<std::uint32_t>(second[k]) << 16;
      std::memcpy(to + 2 * k, &pair, sizeof pair);
    }
  }
}

at::Tensor rounded(const at::Tensor& x) {
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(at::kBFloat16));
  const std::int64_t depth = x.size(1);
  const std::int64_t step = std::max<std::int64_t>(kRoundedValues / depth, 1);
  run_pieces(divide_up(x.size(0), step), [&](std::int64_t i) {
    const std::int64_t begin = i * step;
    round_rows({.data = x.const_data_ptr<float>() + begin * depth,
                .rows = std::min(step, x.size(0) - begin),
                .depth = depth,
                .stride = depth},
               words_of(y) + begin * depth, depth);
  });
  return y;
}

// x [M, K] as right sides: a panel of its rows, as columns, after the other.
class PackedRows {
 public:
  PackedRows(std::int64_t rows, std::int64_t depth)
      : layout_{rows, depth},
        padded_(round_up(depth, kTileBytes / 2)),
        words_(at::empty({round_up(rows, kPanel), padded_}, at::kBFloat16)) {
    TORCH_CHECK(depth % 2 == 0, "products in panels: ", depth,
                " summands, an even number is wanted");
    for (std::int64_t i = 0; depth < padded_ && i < layout_.panels(); ++i) {
      const std::int64_t width = layout_.width_of(i);
      std::fill_n(words(i) + depth * width, (padded_ - depth) * width, std::uint16_t{0});
    }
  }

  explicit PackedRows(const at::Tensor& x) : PackedRows(x.size(0), x.size(1)) {
    if (x.scalar_type() == at::kBFloat16) {
      pack(words_of(x));
    } else {
      pack(x.const_data_ptr<float>());
    }
  }

  const PanelLayout& layout() const { return layout_; }
  std::uint16_t* words(std::int64_t panel) const {
    return static_cast<std::uint16_t*>(words_.data_ptr()) + panel * kPanel * padded_;
  }

 private:
  template <typename Value>
  void pack(const Value* x) {
    const RowsOf<Value> rows{x, layout_.rows, layout_.depth, layout_.depth};
    run_pieces(layout_.panels(), [&](std::int64_t panel) {
      pack_transposed(rows.from(panel * kPanel, kPanel), layout_.width_of(panel), words(panel));
    });
  }

  PanelLayout layout_;
  std::int64_t padded_;  // the depth in whole steps of tiles, with zeros behind the last row
  at::Tensor words_;
};

using FloatBlock = ProductBlock<float>;

// W xᵀ of each weight, `together` weights of one shape at a time.
template <typename Store>
void multiply(const PackedRows& x, const std::vector<WeightAndBias>& maps, std::size_t together,
              const Store& store) {
  std::vector<std::int64_t> outputs;
  for (const WeightAndBias& map : maps) outputs.push_back(map.weight.size(0));
  const std::int64_t bytes = x.layout().depth * 2;
  if (has_tiles()) {
    const auto pack = [&](const OutputPiece& piece, std::size_t map, std::byte* to) {
      const std::uint16_t* rows = words_of(maps[map].weight) + piece.first * x.layout().depth;
      pack_tiles(rows, piece.count, bytes, bytes, to);
    };
    const auto panel = [&](std::int64_t i) -> const std::uint16_t* { return x.words(i); };
    return multiply_tiled<float>(
        x.layout(),
        cut_outputs(outputs, together, packed_outputs(bytes, together), x.layout().panels()),
        together, bytes, pack, panel, store);
  }
  const auto kernel = [&](const KernelCall& call, float* to) {
    const std::int64_t k = x.layout().depth, width = x.layout().width_of(call.panel);
    at::native::cpublas::brgemm(
        call.count, width, call.depth, k, width, width, /*add_C=*/call.from > 0,
        as_bfloat16(words_of(maps[call.map].weight) + call.first * k + call.from),
        as_bfloat16(x.words(call.panel) + call.from * width), to);
  };
  multiply_panels<float>(x.layout(), outputs, together, kDepth, kernel, store);
}

// From output `first` on; null: none.
const float* bias_of(const WeightAndBias& map, std::int64_t first) {
  return map.bias.defined() ? map.bias.const_data_ptr<float>() + first : nullptr;
}

template <typename Value>
BlockOf<Value> target_in(Value* y, std::int64_t outputs, const PanelLayout& x,
                         const FloatBlock& block) {
  return {.y = y + block.panel * kPanel * outputs + block.first,
          .count = block.count,
          .rows = x.rows_of(block.panel),
          .stride = outputs};
}

BiasedSums sums_of(const WeightAndBias& map, const PanelLayout& x, const FloatBlock& block) {
  return {.data = block.data,
          .width = x.width_of(block.panel),
          .bias = bias_of(map, block.first),
          .scale = nullptr};
}

std::vector<at::Tensor> empty_results(const PackedRows& x, const std::vector<WeightAndBias>& maps,
                                      at::ScalarType dtype) {
  std::vector<at::Tensor> results;
  for (const WeightAndBias& map : maps) {
    results.push_back(at::empty({x.layout().rows, map.weight.size(0)}, dtype));
  }
  return results;
}

std::vector<at::Tensor> multiply_each(const PackedRows& x, const std::vector<WeightAndBias>& maps) {
  std::vector<at::Tensor> results = empty_results(x, maps, at::kFloat);
  multiply(x, maps, 1, [&](const FloatBlock& block) {
    at::Tensor& y = results[block.map];
    store_biased(sums_of(maps[block.map], x.layout(), block),
                 target_in(y.mutable_data_ptr<float>(), y.size(1), x.layout(), block));
  });
  return results;
}

void add_product(const PackedRows& x, const WeightAndBias& map, const AddedBranch& to) {
  const at::Tensor residual = to.residual;
  auto* y = residual.mutable_data_ptr<float>();
  const float* scale = to.scale.defined() ? to.scale.const_data_ptr<float>() : nullptr;
  multiply(x, {map}, 1, [&](const FloatBlock& block) {
    BiasedSums sums = sums_of(map, x.layout(), block);
    if (scale) sums.scale = scale + block.first;
    store_added(sums, target_in(y, map.weight.size(0), x.layout(), block));
  });
}

// Two rows of a right side.
VLM_INLINE void store_pairs(Floats first, Floats second, std::uint16_t* to) {
  const Words pairs = round_pairs((Words)first, (Words)second);
  std::memcpy(to, &pairs, sizeof pairs);
}

// gelu(block + bias) [count, width] as rows of a right side; `count` is even.
template <Gelu Kind>
VLM_INLINE void store_gelu(const FloatBlock& block, const float* bias, std::int64_t width,
                           std::uint16_t* to) {
  for (std::int64_t n = 0; n < block.count; n += 2) {
    const float* sums = block.data + n * width;
    for (std::int64_t m = 0; m < width; m += kLanes, sums += kLanes, to += 2 * kLanes) {
      store_pairs(fast_gelu<Kind>(load_lanes<Floats>(sums) + (bias ? bias[n] : 0.0F)),
                  fast_gelu<Kind>(load_lanes<Floats>(sums + width) + (bias ? bias[n + 1] : 0.0F)),
                  to);
    }
  }
}

VLM_CLONES void store_gelu(const FloatBlock& block, const float* bias, std::int64_t width,
                           std::uint16_t* to, Gelu kind) {
  if (kind == Gelu::kErf) {
    store_gelu<Gelu::kErf>(block, bias, width, to);
  } else if (kind == Gelu::kTanh) {
    store_gelu<Gelu::kTanh>(block, bias, width, to);
  } else {
    store_gelu<Gelu::kQuick>(block, bias, width, to);
  }
}

VLM_INLINE Floats gated(const float* gate, const float* up, float gate_bias, float up_bias) {
  return fast_silu(load_lanes<Floats>(gate) + gate_bias) * (load_lanes<Floats>(up) + up_bias);
}

// silu(gate) · up as rows of a right side, for the block of the gate and that of up.
VLM_CLONES void store_gated(const FloatBlock& block, const float* gate_bias, const float* up_bias,
                            std::int64_t width, std::uint16_t* to) {
  for (std::int64_t n = 0; n < block.count; n += 2) {
    const float* gate = block.data + n * width;
    for (std::int64_t m = 0; m < width; m += kLanes, gate += kLanes, to += 2 * kLanes) {
      const float* up = gate + block.step;
      store_pairs(gated(gate, up, gate_bias ? gate_bias[n] : 0.0F, up_bias ? up_bias[n] : 0.0F),
                  gated(gate + width, up + width, gate_bias ? gate_bias[n + 1] : 0.0F,
                        up_bias ? up_bias[n + 1] : 0.0F),
                  to);
    }
  }
}

}  // namespace

bool can_multiply_in_panels(const at::Tensor& x) {
  return has_panel_products() && x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() &&
         x.size(1) % 2 == 0;
}

std::vector<at::Tensor> panel_linears(const at::Tensor& x, const std::vector<WeightAndBias>& maps) {
  return multiply_each(PackedRows(x), maps);
}

std::vector<at::Tensor> narrow_panel_linears(const at::Tensor& x,
                                             const std::vector<WeightAndBias>& maps) {
  const PackedRows rows(x);
  std::vector<at::Tensor> results = empty_results(rows, maps, at::kBFloat16);
  multiply(rows, maps, 1, [&](const FloatBlock& block) {
    at::Tensor& y = results[block.map];
    store_narrow(sums_of(maps[block.map], rows.layout(), block),
                 target_in(words_of(y), y.size(1), rows.layout(), block));
  });
  return results;
}

void add_panel_linear(const at::Tensor& x, const WeightAndBias& map, const AddedBranch& to) {
  add_product(PackedRows(x), map, to);
}

namespace {

// gelu(fc1(x)) and silu(gate(x)) · up(x) as inputs of the next product
PackedRows activate(const at::Tensor& x, const WeightAndBias& fc1, Gelu kind) {
  PackedRows between(x.size(0), fc1.weight.size(0));
  multiply(PackedRows(x), {fc1}, 1, [&](const FloatBlock& block) {
    const std::int64_t width = between.layout().width_of(block.panel);
    store_gelu(block, bias_of(fc1, block.first), width,
               between.words(block.panel) + block.first * width, kind);
  });
  return between;
}

PackedRows pass_gate(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up) {
  PackedRows between(x.size(0), gate.weight.size(0));
  multiply(PackedRows(x), {gate, up}, 2, [&](const FloatBlock& block) {
    const std::int64_t width = between.layout().width_of(block.panel);
    store_gated(block, bias_of(gate, block.first), bias_of(up, block.first), width,
                between.words(block.panel) + block.first * width);
  });
  return between;
}

}  // namespace

at::Tensor panel_gelu_mlp(const at::Tensor& x, const WeightAndBias& fc1, const WeightAndBias& fc2,
                          Gelu kind) {
  return multiply_each(activate(x, fc1, kind), {fc2})[0];
}

void add_panel_gelu_mlp(const at::Tensor& x, const WeightAndBias& fc1, const WeightAndBias& fc2,
                        Gelu kind, const AddedBranch& to) {
  add_product(activate(x, fc1, kind), fc2, to);
}

at::Tensor panel_gated_mlp(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up,
                           const WeightAndBias& down) {
  return multiply_each(pass_gate(x, gate, up), {down})[0];
}

void add_panel_gated_mlp(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up,
                         const WeightAndBias& down, const AddedBranch& to) {
  add_product(pass_gate(x, gate, up), down, to);
}

at::Tensor panel_times(const at::Tensor& dy, const at::Tensor& weight) {
  const std::int64_t m = dy.size(0), n = weight.size(0), k = weight.size(1);
  at::Tensor dx = at::empty({m, k}, dy.options());
  const at::Tensor left = rounded(dy);
  const std::int64_t panels = divide_up(k, kPanel);
  const std::int64_t most = std::min(n, kDepth);
  at::Tensor packed = at::empty({panels, most, kPanel}, left.options());
  for (std::int64_t begin = 0; begin < n; begin += most) {
    const std::int64_t count = std::min(most, n - begin);
    const auto panel_of = [&](std::int64_t i) { return words_of(packed) + i * most * kPanel; };
    const auto columns_of = [&](std::int64_t i) { return std::min(kPanel, k - i * kPanel); };
    run_pieces(panels, [&](std::int64_t i) {
      pack_panel(words_of(weight) + begin * k + i * kPanel, count, columns_of(i), k, panel_of(i));
    });
    run_pieces(panels * divide_up(m, kPieceRows), [&](std::int64_t piece) {
      const std::int64_t i = piece % panels, first = piece / panels * kPieceRows;
      const std::int64_t end = std::min(first + kPieceRows, m);
      for (std::int64_t row = first; row < end; row += kBlockRows) {
        at::native::cpublas::brgemm(
            std::min(kBlockRows, end - row), columns_of(i), count, n, kPanel, k,
            /*add_C=*/begin > 0, as_bfloat16(words_of(left) + row * n + begin),
            as_bfloat16(panel_of(i)), dx.mutable_data_ptr<float>() + row * k + i * kPanel);
      }
      at::native::cpublas::brgemm_release();
    });
  }
  return dx;
}

}  // namespace vlm

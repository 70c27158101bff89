#include "vlm/nn/cpu/int8/int8_product.h"

#include <ATen/core/ivalue.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <exception>

#include "vlm/nn/cpu/panel_products.h"

namespace vlm {
namespace {

constexpr std::int64_t kDeepest = kDepthBytes;
constexpr std::int64_t kWordCodes = 4;  // that lie together for the processor's products

using IntBlock = ProductBlock<std::int32_t>;

struct PackedPanel {
  std::int8_t* codes;     // [depth / 4, width, 4]
  float* scales;          // [width]
  std::int32_t* offsets;  // [width]: what the weights' 128 adds to the sums
};

// Rows [rows, k] as columns of a panel of `width` columns, which is a multiple of 16. `codes` is
// room for 16 rows.
VLM_CLONES void pack_rows(const float* from, std::int64_t rows, std::int64_t k, std::int64_t depth,
                          std::int64_t width, std::int8_t* codes, const PackedPanel& to) {
  for (std::int64_t first = 0; first < width; first += kLanes) {
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t m = first + i;
      std::int8_t* row_codes = codes + i * depth;
      QuantizedRow row{};
      if (m < rows) {
        row = quantize_row(from + m * k, k, depth, row_codes);
      } else {
        std::memset(row_codes, 0, static_cast<std::size_t>(depth));
      }
      to.scales[m] = row.scale;
      to.offsets[m] = 128 * row.sum;
    }
    for (std::int64_t d = 0; d < depth; d += kWordCodes * kLanes) {
      Words block[kLanes];
      for (std::int64_t i = 0; i < kLanes; ++i) {
        block[i] = load_lanes<Words>(codes + i * depth + d);
      }
      transpose_lanes(block);
      for (std::int64_t i = 0; i < kLanes; ++i) {
        std::memcpy(to.codes + (d / kWordCodes + i) * width * kWordCodes + first * kWordCodes,
                    &block[i], sizeof block[i]);
      }
    }
  }
}

// x [M, K] as right sides, a panel after the other.
class QuantizedPanels {
 public:
  explicit QuantizedPanels(const at::Tensor& x)
      : layout_{x.size(0), round_up(x.size(1), kCodesStep)},
        codes_(at::empty({round_up(layout_.rows, kPanel), layout_.depth}, at::kChar)),
        scales_(at::empty({round_up(layout_.rows, kPanel)}, at::kFloat)),
        offsets_(at::empty({round_up(layout_.rows, kPanel)}, at::kInt)) {
    const std::int64_t k = x.size(1);
    run_pieces(layout_.panels(), [&](std::int64_t i) {
      thread_local std::vector<std::int8_t> rows;
      rows.resize(static_cast<std::size_t>(kLanes * layout_.depth));
      pack_rows(x.const_data_ptr<float>() + i * kPanel * k, layout_.rows_of(i), k, layout_.depth,
                layout_.width_of(i), rows.data(), panel(i));
    });
  }

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
struct Outputs {
  const float* scales;
  const float* bias;  // or null
};

Outputs outputs_of(const Int8Map& map, std::int64_t first) {
  return {.scales = map.weight->scales.const_data_ptr<float>() + first,
          .bias = map.bias.defined() ? map.bias.const_data_ptr<float>() + first : nullptr};
}

struct ScaledColumns {
  Floats scales, biases;
};

VLM_INLINE ScaledColumns load_columns(const Outputs& outputs, std::int64_t n, std::int64_t count) {
  return {.scales = load_partial(outputs.scales + n, count),
          .biases = load_partial(outputs.bias ? outputs.bias + n : nullptr, count)};
}

VLM_INLINE Floats scaled(Floats sums, const ScaledColumns& columns) {
  return sums * columns.scales + columns.biases;
}

// The integer sums of a block as numbers, up to the weights' scales.
struct RowScales {
  const std::int32_t* data;
  std::int64_t step, width;
  PackedPanel x;

  VLM_INLINE Floats load(int block, std::int64_t n, std::int64_t m) const {
    const Ints sums =
        load_lanes<Ints>(data + block * step + n * width + m) - load_lanes<Ints>(x.offsets + m);
    return __builtin_convertvector(sums, Floats) * load_lanes<Floats>(x.scales + m);
  }
};

struct LinearSums : RowScales {
  static constexpr int kBlocks = 1;
  Outputs outputs;

  VLM_INLINE ScaledColumns columns(std::int64_t n, std::int64_t count) const {
    return load_columns(outputs, n, count);
  }
  VLM_INLINE static Floats finish(const ScaledColumns& columns,
                                  const Floats (&values)[kBlocks][kLanes], std::int64_t i) {
    return scaled(values[0][i], columns);
  }
};

template <Gelu Kind>
struct GeluSums : LinearSums {
  VLM_INLINE static Floats finish(const ScaledColumns& columns,
                                  const Floats (&values)[kBlocks][kLanes], std::int64_t i) {
    return fast_gelu<Kind>(scaled(values[0][i], columns));
  }
};

struct GatedSums : RowScales {
  static constexpr int kBlocks = 2;
  Outputs gate, up;

  struct Columns {
    ScaledColumns gate, up;
  };
  VLM_INLINE Columns columns(std::int64_t n, std::int64_t count) const {
    return {.gate = load_columns(gate, n, count), .up = load_columns(up, n, count)};
  }
  VLM_INLINE static Floats finish(const Columns& columns, const Floats (&values)[kBlocks][kLanes],
                                  std::int64_t i) {
    return fast_silu(scaled(values[0][i], columns.gate)) * scaled(values[1][i], columns.up);
  }
};

VLM_CLONES void store_sums(const LinearSums& sums, const BlockTarget& to) {
  store_transposed(sums, to);
}
VLM_CLONES void store_sums(const LinearSums& sums, const BlockTarget& to, Gelu kind) {
  if (kind == Gelu::kErf) {
    store_transposed(GeluSums<Gelu::kErf>{sums}, to);
  } else if (kind == Gelu::kTanh) {
    store_transposed(GeluSums<Gelu::kTanh>{sums}, to);
  } else {
    store_transposed(GeluSums<Gelu::kQuick>{sums}, to);
  }
}
VLM_CLONES void store_sums(const GatedSums& sums, const BlockTarget& to) {
  store_transposed(sums, to);
}

// W xᵀ of each weight, `together` weights of one shape at a time.
template <typename Store>
void multiply(const QuantizedPanels& x, const std::vector<Int8Map>& maps, std::size_t together,
              const Store& store) {
  std::vector<std::int64_t> outputs;
  for (const Int8Map& map : maps) outputs.push_back(map.weight->out_features());
  const auto kernel = [&](const KernelCall& call, std::int32_t* to) {
    const std::int64_t k = x.layout().depth, width = x.layout().width_of(call.panel);
    const auto* codes = maps[call.map].weight->codes.const_data_ptr<std::uint8_t>();
    at::native::cpublas::brgemm(
        call.count, width, call.depth, k, width, width,
        /*add_C=*/call.from > 0, codes + call.first * k + call.from,
        static_cast<const signed char*>(x.panel(call.panel).codes) + call.from * width, to);
  };
  multiply_panels<std::int32_t>(x.layout(), outputs, together, kDeepest, kernel, store);
}

RowScales row_scales(const QuantizedPanels& x, const IntBlock& block) {
  return {.data = block.data,
          .step = block.step,
          .width = x.layout().width_of(block.panel),
          .x = x.panel(block.panel)};
}

BlockTarget target_of(const QuantizedPanels& x, const IntBlock& block, at::Tensor& y) {
  return {.y = y.mutable_data_ptr<float>() + block.panel * kPanel * y.size(1) + block.first,
          .count = block.count,
          .rows = x.layout().rows_of(block.panel),
          .stride = y.size(1)};
}

at::Tensor result_of(const at::Tensor& x, const Int8Map& map) {
  return at::empty({x.size(0), map.weight->out_features()}, at::kFloat);
}

// Multiplies small numbers, whose sums are known.
bool is_kernel_right() {
  constexpr std::int64_t kDepth = 64;
  const at::Tensor x = at::empty({kPanel, kDepth}, at::kFloat);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    x.mutable_data_ptr<float>()[i] = static_cast<float>(i * 7 % 255) - 127.0F;
  }
  try {
    const Int8Weight weight = quantize_int8(x);
    const at::Tensor found = int8_panel_linears(x, {{&weight, {}}})[0];
    const at::Tensor wanted = x.to(at::kDouble).matmul(x.to(at::kDouble).t());
    return found.to(at::kDouble).sub(wanted).abs().max().item<double>() <
           0.01 * wanted.abs().max().item<double>();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

bool has_int8_products() {
  static const bool is_usable = [] {
    const auto capabilities = at::cpu::get_cpu_capabilities();
    const auto found = capabilities.find("avx512_vnni");
    return found != capabilities.end() && found->second.isBool() && found->second.toBool() &&
           is_kernel_right();
  }();
  return is_usable;
}

std::vector<at::Tensor> int8_panel_linears(const at::Tensor& x, const std::vector<Int8Map>& maps) {
  const QuantizedPanels panels(x);
  std::vector<at::Tensor> results;
  for (const Int8Map& map : maps) results.push_back(result_of(x, map));
  multiply(panels, maps, 1, [&](const IntBlock& block) {
    store_sums(LinearSums{row_scales(panels, block), outputs_of(maps[block.map], block.first)},
               target_of(panels, block, results[block.map]));
  });
  return results;
}

at::Tensor int8_panel_gelu(const at::Tensor& x, const Int8Map& map, Gelu kind) {
  const QuantizedPanels panels(x);
  at::Tensor y = result_of(x, map);
  multiply(panels, {map}, 1, [&](const IntBlock& block) {
    store_sums(LinearSums{row_scales(panels, block), outputs_of(map, block.first)},
               target_of(panels, block, y), kind);
  });
  return y;
}

at::Tensor int8_panel_gated(const at::Tensor& x, const Int8Map& gate, const Int8Map& up) {
  const QuantizedPanels panels(x);
  at::Tensor y = result_of(x, gate);
  multiply(panels, {gate, up}, 2, [&](const IntBlock& block) {
    store_sums(GatedSums{row_scales(panels, block), outputs_of(gate, block.first),
                         outputs_of(up, block.first)},
               target_of(panels, block, y));
  });
  return y;
}

}  // namespace vlm

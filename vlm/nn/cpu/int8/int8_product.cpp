#include "vlm/nn/cpu/int8/int8_product.h"

#include <ATen/core/ivalue.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <exception>

#include "vlm/nn/cpu/int8/int8_panels.h"
#include "vlm/nn/cpu/panels/panel_products.h"

namespace vlm {
namespace {

struct Int8Panels {
  using Map = Int8Map;

  static const at::Tensor& scales(const Int8Weight& weight) { return weight.scales; }

  template <typename Store>
  static void multiply(const QuantizedPanels& x, const std::vector<Int8Map>& maps,
                       std::size_t together, const Store& store) {
    std::vector<std::int64_t> outputs;
    for (const Int8Map& map : maps) outputs.push_back(map.weight->out_features());
    if (has_tiles()) return multiply_in_tiles(x, maps, together, outputs, store);
    const auto kernel = [&](const KernelCall& call, std::int32_t* to) {
      const std::int64_t k = x.layout().depth, width = x.layout().width_of(call.panel);
      const auto* codes = maps[call.map].weight->codes.const_data_ptr<std::uint8_t>();
      at::native::cpublas::brgemm(
          call.count, width, call.depth, k, width, width,
          /*add_C=*/call.from > 0, codes + call.first * k + call.from,
          static_cast<const signed char*>(x.panel(call.panel).codes) + call.from * width, to);
    };
    multiply_panels<std::int32_t>(x.layout(), outputs, together, kDepthBytes, kernel, store);
  }

 private:
  template <typename Store>
  static void multiply_in_tiles(const QuantizedPanels& x, const std::vector<Int8Map>& maps,
                                std::size_t together, const std::vector<std::int64_t>& outputs,
                                const Store& store) {
    const PanelLayout& layout = x.layout();
    const auto pack = [&](const OutputPiece& piece, std::size_t map, std::byte* to) {
      const auto* codes = maps[map].weight->codes.const_data_ptr<std::uint8_t>();
      pack_tiles(codes + piece.first * layout.depth, piece.count, layout.depth, layout.depth, to);
    };
    const auto panel = [&](std::int64_t i) -> const std::int8_t* { return x.panel(i).codes; };
    const std::int64_t most = packed_outputs(layout.depth, together);
    multiply_tiled<std::int32_t>(layout, cut_outputs(outputs, together, most, layout.panels()),
                                 together, layout.depth, pack, panel, store);
  }
};

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
  return PanelProducts<Int8Panels>::linears(x, maps);
}

at::Tensor int8_panel_gelu(const at::Tensor& x, const Int8Map& map, Gelu kind) {
  return PanelProducts<Int8Panels>::gelu(x, map, kind);
}

at::Tensor int8_panel_gated(const at::Tensor& x, const Int8Map& gate, const Int8Map& up) {
  return PanelProducts<Int8Panels>::gated(x, gate, up);
}

}  // namespace vlm

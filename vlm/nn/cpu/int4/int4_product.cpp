#include "vlm/nn/cpu/int4/int4_product.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

#include "vlm/nn/cpu/int8/int8_panels.h"

namespace vlm {
namespace {

using SumBlock = ProductBlock<std::int32_t>;

// The sums of `count` rows of codes [count, depth] with a panel of x: [count, width].
void multiply_block(const QuantizedPanels& x, std::int64_t panel, const std::uint8_t* codes,
                    std::int64_t count, std::int32_t* to) {
  const std::int64_t depth = x.layout().depth, width = x.layout().width_of(panel);
  for (std::int64_t from = 0; from < depth; from += kDepthBytes) {
    at::native::cpublas::brgemm(
        count, width, std::min(kDepthBytes, depth - from), depth, width, width,
        /*add_C=*/from > 0, codes + from,
        static_cast<const signed char*>(x.panel(panel).codes) + from * width, to);
  }
}

struct Int4Panels {
  using Map = Int4Map;

  static const at::Tensor& scales(const Int4Weight& weight) { return weight.row_scales; }

  template <typename Store>
  static void multiply(const QuantizedPanels& x, const std::vector<Int4Map>& maps,
                       std::size_t together, const Store& store) {
    std::vector<std::int64_t> outputs;
    for (const Int4Map& map : maps) outputs.push_back(map.weight->out_features());
    const std::vector<OutputPiece> pieces =
        cut_outputs(outputs, together, kBlockRows, x.layout().panels());
    if (has_tiles()) return multiply_in_tiles(x, maps, together, pieces, store);
    run_pieces(std::ssize(pieces), [&](std::int64_t i) {
      const OutputPiece& piece = pieces[static_cast<std::size_t>(i)];
      thread_local LineVector<std::uint8_t> codes;
      thread_local LineVector<std::int32_t> sums;
      const std::int64_t step = kBlockRows * kPanel, codes_step = kBlockRows * x.layout().depth;
      codes.resize(together * static_cast<std::size_t>(codes_step));
      sums.resize(together * static_cast<std::size_t>(step));
      for (std::size_t one = 0; one < together; ++one) {
        unpack_int4(*maps[piece.map + one].weight, piece.first, piece.count,
                    codes.data() + static_cast<std::int64_t>(one) * codes_step);
      }
      for (std::int64_t panel = piece.begin; panel < piece.end; ++panel) {
        for (std::int64_t one = 0; one < static_cast<std::int64_t>(together); ++one) {
          multiply_block(x, panel, codes.data() + one * codes_step, piece.count,
                         sums.data() + one * step);
        }
        store(SumBlock{sums.data(), step, piece.map, panel, piece.first, piece.count});
      }
      at::native::cpublas::brgemm_release();
    });
  }

 private:
  template <typename Store>
  static void multiply_in_tiles(const QuantizedPanels& x, const std::vector<Int4Map>& maps,
                                std::size_t together, const std::vector<OutputPiece>& pieces,
                                const Store& store) {
    const std::int64_t depth = x.layout().depth;
    const auto pack = [&](const OutputPiece& piece, std::size_t map, std::byte* to) {
      thread_local LineVector<std::uint8_t> codes;
      codes.resize(static_cast<std::size_t>(piece.count * depth));
      unpack_int4(*maps[map].weight, piece.first, piece.count, codes.data());
      pack_tiles(codes.data(), piece.count, depth, depth, to);
    };
    const auto panel = [&](std::int64_t i) -> const std::int8_t* { return x.panel(i).codes; };
    multiply_tiled<std::int32_t>(x.layout(), pieces, together, depth, pack, panel, store);
  }
};

}  // namespace

std::vector<at::Tensor> int4_panel_linears(const at::Tensor& x, const std::vector<Int4Map>& maps) {
  return PanelProducts<Int4Panels>::linears(x, maps);
}

at::Tensor int4_panel_gelu(const at::Tensor& x, const Int4Map& map, Gelu kind) {
  return PanelProducts<Int4Panels>::gelu(x, map, kind);
}

at::Tensor int4_panel_gated(const at::Tensor& x, const Int4Map& gate, const Int4Map& up) {
  return PanelProducts<Int4Panels>::gated(x, gate, up);
}

}  // namespace vlm

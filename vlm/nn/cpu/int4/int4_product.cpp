#include "vlm/nn/cpu/int4/int4_product.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

#include "vlm/nn/cpu/int8/int8_panels.h"

namespace vlm {
namespace {

using SumBlock = ProductBlock<std::int32_t>;

// What a thread takes at a time: some outputs of a weight, with some panels of x.
struct OutputPiece {
  std::size_t map;
  std::int64_t first, count;
  std::int64_t begin, end;  // panels
};

// Few weights are shared between threads by the panels too; each thread then unpacks for itself.
std::vector<OutputPiece> cut_outputs(const std::vector<Int4Map>& maps, std::size_t together,
                                     std::int64_t panels) {
  std::vector<OutputPiece> whole, pieces;
  for (std::size_t i = 0; i < maps.size(); i += together) {
    const std::int64_t outputs = maps[i].weight->out_features();
    for (std::int64_t first = 0; first < outputs; first += kBlockRows) {
      whole.push_back({i, first, std::min(kBlockRows, outputs - first), 0, panels});
    }
  }
  const std::int64_t wanted = 4 * at::get_num_threads();
  const std::int64_t parts =
      std::clamp<std::int64_t>(divide_up(wanted, std::ssize(whole)), 1, panels);
  const std::int64_t step = divide_up(panels, parts);
  for (const OutputPiece& one : whole) {
    for (std::int64_t begin = 0; begin < panels; begin += step) {
      pieces.push_back({one.map, one.first, one.count, begin, std::min(begin + step, panels)});
    }
  }
  return pieces;
}

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
    const std::vector<OutputPiece> pieces = cut_outputs(maps, together, x.layout().panels());
    run_pieces(std::ssize(pieces), [&](std::int64_t i) {
      const OutputPiece& piece = pieces[static_cast<std::size_t>(i)];
      thread_local std::vector<std::uint8_t> codes;
      thread_local std::vector<std::int32_t> sums;
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

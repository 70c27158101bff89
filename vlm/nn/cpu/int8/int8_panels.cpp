#include "vlm/nn/cpu/int8/int8_panels.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <vector>

#include "vlm/nn/cpu/int8/int8_weight.h"

namespace vlm {
namespace {

constexpr std::int64_t kWordCodes = 4;  // that lie together for the processor's products

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

}  // namespace

QuantizedPanels::QuantizedPanels(const at::Tensor& x)
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

CodeSums sums_of(const QuantizedPanels& x, const ProductBlock<std::int32_t>& block) {
  return {.data = block.data,
          .step = block.step,
          .width = x.layout().width_of(block.panel),
          .x = x.panel(block.panel)};
}

BlockTarget target_of(const QuantizedPanels& x, const ProductBlock<std::int32_t>& block,
                      at::Tensor& y) {
  return {.y = y.mutable_data_ptr<float>() + block.panel * kPanel * y.size(1) + block.first,
          .count = block.count,
          .rows = x.layout().rows_of(block.panel),
          .stride = y.size(1)};
}

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

}  // namespace vlm

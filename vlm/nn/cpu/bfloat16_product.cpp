#include "vlm/nn/cpu/bfloat16_product.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/bfloat16_panels.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kBlockRows = 64;         // of the left side; a block of results is 16 kB
constexpr std::int64_t kPieceRows = 256;        // of the left side, that a thread takes at a time
constexpr std::int64_t kDepth = 2048;           // summands at a time: both sides stay in the cache
constexpr std::int64_t kRoundedValues = 65536;  // that a thread rounds at a time

std::int64_t divide_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step;
}

// y[m, n] = block[n, m] + bias[n] for a block [count, width] of which `rows` columns are wanted.
struct TransposedBlock {
  const float* data;
  const float* bias;  // of the block's first n, or null
  float* y;           // at the block's first m and n
  std::int64_t count, width, rows, stride;
};

VLM_CLONES void store_transposed(const TransposedBlock& block) {
  const std::int64_t whole = block.count / kLanes * kLanes;
  for (std::int64_t m = 0; m < block.rows; m += kLanes) {
    const std::int64_t rows = std::min<std::int64_t>(kLanes, block.rows - m);
    float* y = block.y + m * block.stride;
    for (std::int64_t n = 0; n < whole; n += kLanes) {
      Floats lanes[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        lanes[i] = load_lanes<Floats>(block.data + (n + i) * block.width + m);
      }
      transpose_lanes(lanes);
      const Floats bias = block.bias ? load_lanes<Floats>(block.bias + n) : Floats{};
      for (std::int64_t i = 0; i < rows; ++i) {
        const Floats sum = lanes[i] + bias;
        std::memcpy(y + i * block.stride + n, &sum, sizeof sum);
      }
    }
    for (std::int64_t n = whole; n < block.count; ++n) {
      for (std::int64_t i = 0; i < rows; ++i) {
        y[i * block.stride + n] =
            block.data[n * block.width + m + i] + (block.bias ? block.bias[n] : 0.0F);
      }
    }
  }
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
               words_of(y) + begin * depth);
  });
  return y;
}

// W xᵀ of each weight, turned back.
void multiply_by_x(const at::Tensor& x, const std::vector<WeightAndBias>& maps,
                   std::vector<at::Tensor>& results) {
  const std::int64_t m = x.size(0), k = x.size(1);
  const std::int64_t panels = divide_up(m, kPanel);
  const auto rows_of = [&](std::int64_t panel) { return std::min(kPanel, m - panel * kPanel); };
  const auto width_of = [&](std::int64_t panel) {
    return divide_up(rows_of(panel), kLanes) * kLanes;
  };
  at::Tensor packed = at::empty({panels * kPanel, k}, x.options().dtype(at::kBFloat16));
  const auto panel_of = [&](std::int64_t panel) { return words_of(packed) + panel * kPanel * k; };
  run_pieces(panels, [&](std::int64_t panel) {
    pack_transposed(FloatRows{.data = x.const_data_ptr<float>() + panel * kPanel * k,
                              .rows = rows_of(panel),
                              .depth = k,
                              .stride = k},
                    width_of(panel), panel_of(panel));
  });

  struct Piece {
    std::size_t map;
    std::int64_t begin, end;  // rows of its weight
  };
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const std::int64_t n = maps[i].weight.size(0);
    for (std::int64_t begin = 0; begin < n; begin += kPieceRows) {
      pieces.push_back({i, begin, std::min(begin + kPieceRows, n)});
    }
  }
  const auto work = [&](const Piece& piece, std::int64_t panel) {
    thread_local std::vector<float> blocks(kPieceRows * kPanel);
    const auto& [weight, bias] = maps[piece.map];
    const std::int64_t n = weight.size(0), width = width_of(panel);
    for (std::int64_t from = 0; from < k; from += kDepth) {
      const std::int64_t depth = std::min(kDepth, k - from);
      for (std::int64_t first = piece.begin; first < piece.end; first += kBlockRows) {
        const std::int64_t count = std::min(kBlockRows, piece.end - first);
        float* block = blocks.data() + (first - piece.begin) * kPanel;
        at::native::cpublas::brgemm(count, width, depth, k, width, width, /*add_C=*/from > 0,
                                    as_bfloat16(words_of(weight) + first * k + from),
                                    as_bfloat16(panel_of(panel) + from * width), block);
        if (from + depth < k) continue;
        float* y = results[piece.map].mutable_data_ptr<float>() + panel * kPanel * n + first;
        store_transposed({.data = block,
                          .bias = bias.defined() ? bias.const_data_ptr<float>() + first : nullptr,
                          .y = y,
                          .count = count,
                          .width = width,
                          .rows = rows_of(panel),
                          .stride = n});
      }
    }
    at::native::cpublas::brgemm_release();
  };
  // All panels of a piece of W follow each other: it stays in the cache.
  run_pieces(std::ssize(pieces) * panels, [&](std::int64_t i) {
    work(pieces[static_cast<std::size_t>(i / panels)], i % panels);
  });
}

// Whether packing the weights takes less than packing x and turning the results, by what each
// takes for a value.
bool is_weight_packed(const at::Tensor& x, const std::vector<WeightAndBias>& maps) {
  std::int64_t outputs = 0;
  for (const WeightAndBias& map : maps) outputs += map.weight.size(0);
  return 2 * outputs * x.size(1) < x.size(0) * (4 * x.size(1) + 3 * outputs);
}

// y[m, n] = block[m, n] + bias[n] for a block [count, width] of which `columns` are wanted.
VLM_CLONES void store_with_bias(const float* block, const float* bias, std::int64_t count,
                                std::int64_t width, std::int64_t columns, float* y,
                                std::int64_t stride) {
  for (std::int64_t m = 0; m < count; ++m, block += width, y += stride) {
    for (std::int64_t n = 0; n < columns; ++n) y[n] = block[n] + (bias ? bias[n] : 0.0F);
  }
}

// left Wᵀ for left [M, K] in bfloat16.
void multiply_by_weight(const at::Tensor& left, const WeightAndBias& map, at::Tensor& y) {
  const std::int64_t m = left.size(0), k = left.size(1), n = map.weight.size(0);
  const float* bias = map.bias.defined() ? map.bias.const_data_ptr<float>() : nullptr;
  const std::int64_t panels = divide_up(n, kPanel);
  const auto columns_of = [&](std::int64_t panel) { return std::min(kPanel, n - panel * kPanel); };
  const auto width_of = [&](std::int64_t panel) {
    return divide_up(columns_of(panel), kLanes) * kLanes;
  };
  at::Tensor packed = at::empty({panels * kPanel, k}, left.options());
  const auto panel_of = [&](std::int64_t panel) { return words_of(packed) + panel * kPanel * k; };
  run_pieces(panels, [&](std::int64_t panel) {
    pack_transposed(WordRows{.data = words_of(map.weight) + panel * kPanel * k,
                             .rows = columns_of(panel),
                             .depth = k,
                             .stride = k},
                    width_of(panel), panel_of(panel));
  });
  // All panels of a piece of x follow each other: it stays in the cache.
  run_pieces(panels * divide_up(m, kPieceRows), [&](std::int64_t i) {
    thread_local std::vector<float> blocks(kPieceRows * kPanel);
    const std::int64_t panel = i % panels, begin = i / panels * kPieceRows;
    const std::int64_t end = std::min(begin + kPieceRows, m), width = width_of(panel);
    for (std::int64_t from = 0; from < k; from += kDepth) {
      const std::int64_t depth = std::min(kDepth, k - from);
      for (std::int64_t first = begin; first < end; first += kBlockRows) {
        const std::int64_t count = std::min(kBlockRows, end - first);
        float* block = blocks.data() + (first - begin) * kPanel;
        at::native::cpublas::brgemm(count, width, depth, k, width, width, /*add_C=*/from > 0,
                                    as_bfloat16(words_of(left) + first * k + from),
                                    as_bfloat16(panel_of(panel) + from * width), block);
        if (from + depth < k) continue;
        store_with_bias(block, bias ? bias + panel * kPanel : nullptr, count, width,
                        columns_of(panel), y.mutable_data_ptr<float>() + first * n + panel * kPanel,
                        n);
      }
    }
    at::native::cpublas::brgemm_release();
  });
}

}  // namespace

bool can_multiply_in_panels(const at::Tensor& x) {
  return has_panel_products() && x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() &&
         x.size(1) % 2 == 0;
}

std::vector<at::Tensor> panel_linears(const at::Tensor& x, const std::vector<WeightAndBias>& maps) {
  std::vector<at::Tensor> results;
  for (const WeightAndBias& map : maps) {
    results.push_back(at::empty({x.size(0), map.weight.size(0)}, x.options()));
  }
  if (is_weight_packed(x, maps)) {
    const at::Tensor left = rounded(x);
    for (std::size_t i = 0; i < maps.size(); ++i) multiply_by_weight(left, maps[i], results[i]);
  } else {
    multiply_by_x(x, maps, results);
  }
  return results;
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

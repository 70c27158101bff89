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

// x [M, K] as right sides: a panel of its rows, as columns, after the other.
class PackedRows {
 public:
  PackedRows(std::int64_t rows, std::int64_t depth)
      : rows_(rows),
        depth_(depth),
        words_(at::empty({round_up(rows, kPanel), depth}, at::kBFloat16)) {
    TORCH_CHECK(depth % 2 == 0, "products in panels: ", depth,
                " summands, an even number is wanted");
  }

  explicit PackedRows(const at::Tensor& x) : PackedRows(x.size(0), x.size(1)) {
    run_pieces(panels(), [&](std::int64_t panel) {
      pack_transposed({.data = x.const_data_ptr<float>() + panel * kPanel * depth_,
                       .rows = rows_of(panel),
                       .depth = depth_,
                       .stride = depth_},
                      width_of(panel), words(panel));
    });
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t depth() const { return depth_; }
  std::int64_t panels() const { return divide_up(rows_, kPanel); }
  std::int64_t rows_of(std::int64_t panel) const {
    return std::min(kPanel, rows_ - panel * kPanel);
  }
  std::int64_t width_of(std::int64_t panel) const { return round_up(rows_of(panel), kLanes); }
  std::uint16_t* words(std::int64_t panel) const {
    return static_cast<std::uint16_t*>(words_.data_ptr()) + panel * kPanel * depth_;
  }

 private:
  std::int64_t rows_, depth_;
  at::Tensor words_;
};

// Rows of W, from `first` on, times a panel of x; of several weights at once, one behind the other.
struct ProductBlock {
  const float* data;  // [count, width]
  std::int64_t step;  // to the next weight's block
  std::size_t map;    // the first of the weights
  std::int64_t panel, first, count;
};

// W xᵀ of each weight, `together` weights of one shape at a time; store(block) gets the result in
// blocks that are in the cache.
template <typename Store>
void multiply(const PackedRows& x, const std::vector<WeightAndBias>& maps, std::size_t together,
              const Store& store) {
  struct Piece {
    std::size_t map;
    std::int64_t begin, end;  // rows of its weight
  };
  const std::int64_t piece_rows = kPieceRows / static_cast<std::int64_t>(together);
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < maps.size(); i += together) {
    const std::int64_t n = maps[i].weight.size(0);
    for (std::int64_t begin = 0; begin < n; begin += piece_rows) {
      pieces.push_back({i, begin, std::min(begin + piece_rows, n)});
    }
  }
  const std::int64_t k = x.depth();
  const auto work = [&](const Piece& piece, std::int64_t panel) {
    thread_local std::vector<float> blocks(kPieceRows * kPanel);
    const std::int64_t width = x.width_of(panel), step = piece_rows * kPanel;
    for (std::int64_t from = 0; from < k; from += kDepth) {
      const std::int64_t depth = std::min(kDepth, k - from);
      for (std::int64_t first = piece.begin; first < piece.end; first += kBlockRows) {
        const std::int64_t count = std::min(kBlockRows, piece.end - first);
        float* block = blocks.data() + (first - piece.begin) * kPanel;
        for (std::size_t i = 0; i < together; ++i) {
          at::native::cpublas::brgemm(
              count, width, depth, k, width, width, /*add_C=*/from > 0,
              as_bfloat16(words_of(maps[piece.map + i].weight) + first * k + from),
              as_bfloat16(x.words(panel) + from * width),
              block + static_cast<std::int64_t>(i) * step);
        }
        if (from + depth == k) store(ProductBlock{block, step, piece.map, panel, first, count});
      }
    }
    at::native::cpublas::brgemm_release();
  };
  // All panels of a piece of W follow each other: it stays in the cache.
  run_pieces(std::ssize(pieces) * x.panels(), [&](std::int64_t i) {
    work(pieces[static_cast<std::size_t>(i / x.panels())], i % x.panels());
  });
}

// From output `first` on; null: none.
const float* bias_of(const WeightAndBias& map, std::int64_t first) {
  return map.bias.defined() ? map.bias.const_data_ptr<float>() + first : nullptr;
}

std::vector<at::Tensor> multiply_each(const PackedRows& x, const std::vector<WeightAndBias>& maps) {
  std::vector<at::Tensor> results;
  for (const WeightAndBias& map : maps) {
    results.push_back(at::empty({x.rows(), map.weight.size(0)}, at::kFloat));
  }
  multiply(x, maps, 1, [&](const ProductBlock& block) {
    at::Tensor& y = results[block.map];
    store_transposed(
        {.data = block.data,
         .bias = bias_of(maps[block.map], block.first),
         .y = y.mutable_data_ptr<float>() + block.panel * kPanel * y.size(1) + block.first,
         .count = block.count,
         .width = x.width_of(block.panel),
         .rows = x.rows_of(block.panel),
         .stride = y.size(1)});
  });
  return results;
}

// Two rows of a right side.
VLM_INLINE void store_pairs(Floats first, Floats second, std::uint16_t* to) {
  const Words pairs = round_pairs((Words)first, (Words)second);
  std::memcpy(to, &pairs, sizeof pairs);
}

// gelu(block + bias) [count, width] as rows of a right side; `count` is even.
VLM_CLONES void store_gelu(const ProductBlock& block, const float* bias, std::int64_t width,
                           std::uint16_t* to) {
  for (std::int64_t n = 0; n < block.count; n += 2) {
    const float* sums = block.data + n * width;
    for (std::int64_t m = 0; m < width; m += kLanes, sums += kLanes, to += 2 * kLanes) {
      store_pairs(gelu_of(load_lanes<Floats>(sums) + (bias ? bias[n] : 0.0F)),
                  gelu_of(load_lanes<Floats>(sums + width) + (bias ? bias[n + 1] : 0.0F)), to);
    }
  }
}

VLM_INLINE Floats gated(const float* gate, const float* up, float gate_bias, float up_bias) {
  return silu_of(load_lanes<Floats>(gate) + gate_bias) * (load_lanes<Floats>(up) + up_bias);
}

// silu(gate) · up as rows of a right side, for the block of the gate and that of up.
VLM_CLONES void store_gated(const ProductBlock& block, const float* gate_bias, const float* up_bias,
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

at::Tensor panel_gelu_mlp(const at::Tensor& x, const WeightAndBias& fc1, const WeightAndBias& fc2) {
  const PackedRows between(x.size(0), fc1.weight.size(0));
  multiply(PackedRows(x), {fc1}, 1, [&](const ProductBlock& block) {
    const std::int64_t width = between.width_of(block.panel);
    store_gelu(block, bias_of(fc1, block.first), width,
               between.words(block.panel) + block.first * width);
  });
  return multiply_each(between, {fc2})[0];
}

at::Tensor panel_gated_mlp(const at::Tensor& x, const WeightAndBias& gate, const WeightAndBias& up,
                           const WeightAndBias& down) {
  const PackedRows between(x.size(0), gate.weight.size(0));
  multiply(PackedRows(x), {gate, up}, 2, [&](const ProductBlock& block) {
    const std::int64_t width = between.width_of(block.panel);
    store_gated(block, bias_of(gate, block.first), bias_of(up, block.first), width,
                between.words(block.panel) + block.first * width);
  });
  return multiply_each(between, {down})[0];
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

// W xᵀ in blocks that stay in the cache, with W read as it lies in memory and x packed in panels.
// Shared by the products in bfloat16 and in 8 bits.
//
// A panel holds up to 64 rows of x as the columns of a right-hand matrix. A block of the result is
// some rows of W times a panel, so it is transposed.
#pragma once

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {

constexpr std::int64_t kPanel = 64;         // columns of a panel
constexpr std::int64_t kBlockRows = 64;     // rows of W in a block; a block of results is 16 kB
constexpr std::int64_t kPieceRows = 256;    // rows of W that a thread takes at a time
constexpr std::int64_t kDepthBytes = 4096;  // bytes of a row at a time, so that both stay in cache

// Layout of the rows of x in panels.
struct PanelLayout {
  std::int64_t rows, depth;

  std::int64_t panels() const { return divide_up(rows, kPanel); }
  std::int64_t rows_of(std::int64_t panel) const { return std::min(kPanel, rows - panel * kPanel); }
  std::int64_t width_of(std::int64_t panel) const { return round_up(rows_of(panel), kLanes); }
};

// A block of the result: rows of W, from `first` on, times a panel of x. For several weights the
// blocks follow each other.
template <typename Value>
struct ProductBlock {
  const Value* data;  // [count, width]
  std::int64_t step;  // to the next weight's block
  std::size_t map;    // the first of the weights
  std::int64_t panel, first, count;
};

// What one call of a kernel multiplies: `count` rows of a weight with a panel, over `depth` values
// of each row.
struct KernelCall {
  std::size_t map;
  std::int64_t panel, first, count, from, depth;
};

// Multiplies weights of outputs[i] rows each, over rows of `deepest` values; `together` weights of
// the same shape at a time. kernel(call, to) writes a block's sums [count, width], or adds to them
// if call.from > 0; store(block) gets them while they are in the cache. Both on any thread.
template <typename Value, typename Kernel, typename Store>
void multiply_panels(const PanelLayout& x, const std::vector<std::int64_t>& outputs,
                     std::size_t together, std::int64_t deepest, const Kernel& kernel,
                     const Store& store) {
  struct Piece {
    std::size_t map;
    std::int64_t begin, end;  // rows of its weight
  };
  const std::int64_t piece_rows = kPieceRows / static_cast<std::int64_t>(together);
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < outputs.size(); i += together) {
    for (std::int64_t begin = 0; begin < outputs[i]; begin += piece_rows) {
      pieces.push_back({i, begin, std::min(begin + piece_rows, outputs[i])});
    }
  }
  const auto work = [&](const Piece& piece, std::int64_t panel) {
    thread_local std::vector<Value> blocks(kPieceRows * kPanel);
    const std::int64_t step = piece_rows * kPanel;
    for (std::int64_t from = 0; from < x.depth; from += deepest) {
      const std::int64_t depth = std::min(deepest, x.depth - from);
      for (std::int64_t first = piece.begin; first < piece.end; first += kBlockRows) {
        const std::int64_t count = std::min(kBlockRows, piece.end - first);
        Value* block = blocks.data() + (first - piece.begin) * kPanel;
        for (std::size_t i = 0; i < together; ++i) {
          kernel(KernelCall{piece.map + i, panel, first, count, from, depth},
                 block + static_cast<std::int64_t>(i) * step);
        }
        if (from + depth == x.depth) {
          store(ProductBlock<Value>{block, step, piece.map, panel, first, count});
        }
      }
    }
    at::native::cpublas::brgemm_release();
  };
  // All panels are multiplied with a piece of W before the next piece, so that the piece stays in
  // the cache.
  run_pieces(std::ssize(pieces) * x.panels(), [&](std::int64_t i) {
    work(pieces[static_cast<std::size_t>(i / x.panels())], i % x.panels());
  });
}

// Where a transposed block is written: `count` columns (n) and `rows` rows (m) of y[m, n].
struct BlockTarget {
  float* y;  // at the block's first m and n
  std::int64_t count, rows, stride;
};

// Transposes kBlocks blocks back and makes y of them. `Sums` says how: load(block, n, m) gives the
// values of m … m + 15; finish(columns, values, i) makes y of the i-th m from values of n … n + 15,
// with what columns(n, count) prepared for those.
template <typename Sums>
VLM_INLINE void store_transposed(const Sums& sums, const BlockTarget& to) {
  for (std::int64_t m = 0; m < to.rows; m += kLanes) {
    const std::int64_t rows = std::min<std::int64_t>(kLanes, to.rows - m);
    for (std::int64_t n = 0; n < to.count; n += kLanes) {
      const std::int64_t count = std::min<std::int64_t>(kLanes, to.count - n);
      Floats values[Sums::kBlocks][kLanes] = {};
      for (int block = 0; block < Sums::kBlocks; ++block) {
        for (std::int64_t i = 0; i < count; ++i) values[block][i] = sums.load(block, n + i, m);
        transpose_lanes(values[block]);
      }
      const auto columns = sums.columns(n, count);
      for (std::int64_t i = 0; i < rows; ++i) {
        store_partial(Sums::finish(columns, values, i), to.y + (m + i) * to.stride + n, count);
      }
    }
  }
}

}  // namespace vlm

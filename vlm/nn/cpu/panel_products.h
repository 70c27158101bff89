// W xᵀ of weights that are read as they lie in memory with an x that is packed in panels, in blocks
// that stay in the cache: what products in bfloat16 and in 8 bits share.
//
// A panel is up to 64 rows of x, as columns of a right side. Blocks of the result are transposed:
// rows of W times a panel.
#pragma once

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {

constexpr std::int64_t kPanel = 64;         // columns of a right side that are multiplied at once
constexpr std::int64_t kBlockRows = 64;     // of the left side; a block of results is 16 kB
constexpr std::int64_t kPieceRows = 256;    // of the left side, that a thread takes at a time
constexpr std::int64_t kDepthBytes = 4096;  // of a row at a time: both sides stay in the cache

// How rows lie in panels.
struct PanelLayout {
  std::int64_t rows, depth;

  std::int64_t panels() const { return divide_up(rows, kPanel); }
  std::int64_t rows_of(std::int64_t panel) const { return std::min(kPanel, rows - panel * kPanel); }
  std::int64_t width_of(std::int64_t panel) const { return round_up(rows_of(panel), kLanes); }
};

// Rows of W, from `first` on, times a panel of x; of several weights at once, one behind the other.
template <typename Value>
struct ProductBlock {
  const Value* data;  // [count, width]
  std::int64_t step;  // to the next weight's block
  std::size_t map;    // the first of the weights
  std::int64_t panel, first, count;
};

// What one call of a kernel multiplies: `count` rows of a weight with a panel, `depth` of their
// values.
struct KernelCall {
  std::size_t map;
  std::int64_t panel, first, count, from, depth;
};

// Multiplies weights with outputs[i] rows each, `together` of them at a time (of one shape), and
// `deepest` summands. kernel(call, to) writes a block's sums [count, width], or adds to them if
// call.from > 0; store(block) gets them while they are in the cache. Both on any thread.
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
  // All panels of a piece of W follow each other: it stays in the cache.
  run_pieces(std::ssize(pieces) * x.panels(), [&](std::int64_t i) {
    work(pieces[static_cast<std::size_t>(i / x.panels())], i % x.panels());
  });
}

// Where a transposed block goes: y[m, n] for `count` n's and `rows` m's.
struct BlockTarget {
  float* y;  // at the block's first m and n
  std::int64_t count, rows, stride;
};

// Turns kBlocks blocks back and makes y of them. `Sums` says how: load(block, n, m) gives the
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
        store_some(Sums::finish(columns, values, i), to.y + (m + i) * to.stride + n, count);
      }
    }
  }
}

}  // namespace vlm

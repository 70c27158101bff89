// W xᵀ in blocks that stay in the cache, with W read as it lies in memory and x packed in panels.
// Shared by the products in bfloat16 and in 8 bits.
//
// A panel holds up to 64 rows of x as the columns of a right-hand matrix. A block of the result is
// some rows of W times a panel, so it is transposed.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"
#include "vlm/nn/cpu/panels/tiles.h"

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
    thread_local LineVector<Value> blocks(kPieceRows * kPanel);
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

// What a thread takes at a time: some outputs of a weight, with some panels of x.
struct OutputPiece {
  std::size_t map;
  std::int64_t first, count;
  std::int64_t begin, end;  // panels
};

// Pieces of at most `most` outputs. Few of them are shared between threads by the panels too.
inline std::vector<OutputPiece> cut_outputs(const std::vector<std::int64_t>& outputs,
                                            std::size_t together, std::int64_t most,
                                            std::int64_t panels) {
  std::vector<OutputPiece> whole, pieces;
  for (std::size_t i = 0; i < outputs.size(); i += together) {
    for (std::int64_t first = 0; first < outputs[i]; first += most) {
      whole.push_back({i, first, std::min(most, outputs[i] - first), 0, panels});
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

constexpr std::int64_t kPackedBytes = 1 << 20;  // of weights that a thread packs for its tiles

// Outputs of a piece whose rows of `bytes` bytes are packed: whole blocks.
inline std::int64_t packed_outputs(std::int64_t bytes, std::size_t together) {
  const std::int64_t fitting = kPackedBytes / static_cast<std::int64_t>(together) / bytes;
  return std::clamp(fitting / kBlockRows * kBlockRows, kBlockRows, kPieceRows);
}

// The same as multiply_panels in the processor's tiles: pack(piece, map, to) writes the piece's
// rows of a weight, as pack_tiles does; panel(i) is a right side, of `bytes` bytes a column.
template <typename Value, typename Pack, typename Panel, typename Store>
void multiply_tiled(const PanelLayout& x, const std::vector<OutputPiece>& pieces,
                    std::size_t together, std::int64_t bytes, const Pack& pack, const Panel& panel,
                    const Store& store) {
  const std::int64_t steps = divide_up(bytes, kTileBytes);
  const auto weights = static_cast<std::int64_t>(together);
  run_pieces(std::ssize(pieces), [&](std::int64_t number) {
    const OutputPiece& piece = pieces[static_cast<std::size_t>(number)];
    const std::int64_t packed = packed_tile_bytes(piece.count, bytes);
    constexpr std::int64_t kStep = kBlockRows * kPanel;
    thread_local LineVector<Value> sums;
    sums.resize(static_cast<std::size_t>(weights * kStep));
    std::byte* rows = tile_scratch(weights * packed);
    for (std::int64_t i = 0; i < weights; ++i) {
      pack(piece, piece.map + static_cast<std::size_t>(i), rows + i * packed);
    }
    const TileUse tiles;
    for (std::int64_t right = piece.begin; right < piece.end; ++right) {
      for (std::int64_t first = 0; first < piece.count; first += kBlockRows) {
        const std::int64_t count = std::min(kBlockRows, piece.count - first);
        for (std::int64_t i = 0; i < weights; ++i) {
          const std::int64_t width = x.width_of(right);
          multiply_tiles(
              TileRows::packed(rows + i * packed + first * steps * kTileBytes, count, steps),
              {panel(right), width, width}, {sums.data() + i * kStep, width});
        }
        store(
            ProductBlock<Value>{sums.data(), kStep, piece.map, right, piece.first + first, count});
      }
    }
  });
}

// Where a transposed block is written: `count` columns (n) and `rows` rows (m) of y[m, n].
template <typename Value>
struct BlockOf {
  Value* y;  // at the block's first m and n
  std::int64_t count, rows, stride;
};
using BlockTarget = BlockOf<float>;

// What becomes of up to 16 results.
struct FloatResults {
  VLM_INLINE static void store(Floats values, float* to, std::int64_t count) {
    store_partial(values, to, count);
  }
};
struct AddedResults {  // to what is there
  VLM_INLINE static void store(Floats values, float* to, std::int64_t count) {
    store_partial(load_partial(to, count) + values, to, count);
  }
};
struct NarrowResults {  // in bfloat16
  VLM_INLINE static void store(Floats values, std::uint16_t* to, std::int64_t count) {
    const Halves halves = __builtin_convertvector(round_pairs((Words)values, Words{}), Halves);
    std::memcpy(to, &halves, static_cast<std::size_t>(std::min(count, kLanes)) * sizeof *to);
  }
};

// Transposes kBlocks blocks back and makes y of them. `Sums` says how: load(block, n, m) gives the
// values of m … m + 15; finish(columns, values, i) makes y of the i-th m from values of n … n + 15,
// with what columns(n, count) prepared for those.
template <typename Results = FloatResults, typename Sums, typename Value>
VLM_INLINE void store_transposed(const Sums& sums, const BlockOf<Value>& to) {
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
        Results::store(Sums::finish(columns, values, i), to.y + (m + i) * to.stride + n, count);
      }
    }
  }
}

}  // namespace vlm

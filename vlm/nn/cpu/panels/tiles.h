// Blocks of matrix products in the processor's tiles (AMX), which are 16 rows of 64 bytes.
//
//   left [rows, steps of 64 bytes], right [16 × steps, columns of 4 bytes] ─► sums [rows, columns]
//
// A step is 32 numbers in bfloat16, summed in float32, or 64 codes, unsigned on the left and signed
// on the right, summed in int32. Right sides are panels (panel_products.h). Left sides are copied,
// so that a tile's rows follow each other: read where they lie, with a page or more from one row to
// the next, the first tile of each row was waited for most of the time. The sums are those of
// oneDNN's block kernels, which use the same instructions: bit for bit where steps are whole.
// Reference: Intel Architecture Instruction Set Extensions, chapter AMX.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vlm {

constexpr std::int64_t kTileRows = 16;
constexpr std::int64_t kTileBytes = 64;  // of a row

// Whether the processor has tiles, for both types, and the system lets this process use them.
bool has_tiles();

// While it lives, the calling thread's tiles are as multiply_tiles needs them. Nothing else may use
// them meanwhile.
class TileUse {
 public:
  TileUse();
  ~TileUse();
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
};

// A left side. In bytes: from one of 16 rows to the next, from a step to the next, and from 16 rows
// to the next 16. Where rows aren't packed there must be 16 × n of them, and whole steps.
struct TileRows {
  const std::byte* data;
  std::int64_t rows, steps;
  std::int64_t row, step, group;

  // As pack_tiles writes them.
  static TileRows packed(const std::byte* data, std::int64_t rows, std::int64_t steps) {
    constexpr std::int64_t kTile = kTileRows * kTileBytes;
    return {data, rows, steps, kTileBytes, kTile, steps * kTile};
  }
  // As a matrix, of `stride` bytes a row.
  static TileRows plain(const void* data, std::int64_t rows, std::int64_t steps,
                        std::int64_t stride) {
    return {
        static_cast<const std::byte*>(data), rows, steps, stride, kTileBytes, kTileRows * stride};
  }
};

// A panel, and how many of its columns are multiplied: a multiple of kTileRows.
template <typename Value>
struct TilePanel {
  const Value* data;
  std::int64_t stride, columns;
};

// Rows of `stride` numbers up to a multiple of kTileRows.
template <typename Sum>
struct TileSums {
  Sum* data;
  std::int64_t stride;
  bool is_added = false;  // to what is there
};

// Room for `rows` rows of `bytes` bytes.
std::int64_t packed_tile_bytes(std::int64_t rows, std::int64_t bytes);

// Copies rows of `bytes` bytes, `stride` bytes apart; zeros behind the last row and byte.
void pack_tiles(const void* from, std::int64_t rows, std::int64_t bytes, std::int64_t stride,
                std::byte* to);

// Memory of the calling thread, at least `bytes`, in the system's large pages. It stays until it is
// asked for more.
std::byte* tile_scratch(std::int64_t bytes);

void multiply_tiles(const TileRows& left, const TilePanel<std::uint16_t>& right,
                    const TileSums<float>& sums);
void multiply_tiles(const TileRows& left, const TilePanel<std::int8_t>& right,
                    const TileSums<std::int32_t>& sums);

}  // namespace vlm

#include "vlm/nn/cpu/panels/tiles.h"

#include <ATen/core/ivalue.h>
#include <ATen/cpu/Utils.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "vlm/nn/cpu/lanes.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <sys/mman.h>
#define VLM_TILES __attribute__((target("amx-tile,amx-bf16,amx-int8")))
#endif

namespace vlm {

std::int64_t packed_tile_bytes(std::int64_t rows, std::int64_t bytes) {
  return round_up(rows, kTileRows) * round_up(bytes, kTileBytes);
}

void pack_tiles(const void* from, std::int64_t rows, std::int64_t bytes, std::int64_t stride,
                std::byte* to) {
  const std::int64_t steps = divide_up(bytes, kTileBytes);
  const std::int64_t whole = bytes / kTileBytes;
  constexpr std::int64_t kTile = kTileRows * kTileBytes;
  for (std::int64_t row = 0; row < round_up(rows, kTileRows); ++row) {
    const auto* source = static_cast<const std::byte*>(from) + row * stride;
    std::byte* target = to + row / kTileRows * steps * kTile + row % kTileRows * kTileBytes;
    if (row >= rows) {
      for (std::int64_t i = 0; i < steps; ++i) std::memset(target + i * kTile, 0, kTileBytes);
      continue;
    }
    for (std::int64_t i = 0; i < whole; ++i) {
      std::memcpy(target + i * kTile, source + i * kTileBytes, kTileBytes);
    }
    if (whole < steps) {
      const auto left = static_cast<std::size_t>(bytes - whole * kTileBytes);
      std::memset(target + whole * kTile, 0, kTileBytes);
      std::memcpy(target + whole * kTile, source + whole * kTileBytes, left);
    }
  }
}

std::byte* tile_scratch(std::int64_t bytes) {
  constexpr std::int64_t kLargePage = 2 << 20;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<std::byte, Free> memory;
  thread_local std::int64_t size = 0;
  if (size >= bytes) return memory.get();
  size = 0;
  const auto wanted = static_cast<std::size_t>(round_up(bytes, kLargePage));
  memory.reset(static_cast<std::byte*>(std::aligned_alloc(kLargePage, wanted)));
  if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  ::madvise(memory.get(), wanted, MADV_HUGEPAGE);
#endif
  size = static_cast<std::int64_t>(wanted);
  return memory.get();
}

#ifdef VLM_TILES

namespace {

// The operand of LDTILECFG: eight whole tiles.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileShapes kTileShapes;

// Sums are in the tiles 0 … 3, left sides in 4 and 5, right ones in 6 and 7.
template <int Sum>
VLM_TILES VLM_INLINE void add_products(const float* /*type*/) {
  if constexpr (Sum == 0) _tile_dpbf16ps(0, 4, 6);
  if constexpr (Sum == 1) _tile_dpbf16ps(1, 4, 7);
  if constexpr (Sum == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (Sum == 3) _tile_dpbf16ps(3, 5, 7);
}

template <int Sum>
VLM_TILES VLM_INLINE void add_products(const std::int32_t* /*type*/) {
  if constexpr (Sum == 0) _tile_dpbusd(0, 4, 6);
  if constexpr (Sum == 1) _tile_dpbusd(1, 4, 7);
  if constexpr (Sum == 2) _tile_dpbusd(2, 5, 6);
  if constexpr (Sum == 3) _tile_dpbusd(3, 5, 7);
}

// Zeros in a tile, or what is at `from`.
#define VLM_BEGIN_TILE(tile, from) \
  do {                             \
    if (is_added) {                \
      _tile_loadd(tile, from, to); \
    } else {                       \
      _tile_zero(tile);            \
    }                              \
  } while (false)

// R × C tiles of sums. Strides are in bytes.
template <int R, int C, typename Sum>
VLM_TILES VLM_INLINE void add_tiles(const TileRows& rows, const std::byte* left,
                                    const std::byte* right, std::int64_t from, Sum* sums,
                                    std::int64_t to, bool is_added) {
  const std::byte* second = left + rows.group;
  Sum* below = sums + kTileRows * (to / 4);
  VLM_BEGIN_TILE(0, sums);
  if constexpr (C == 2) VLM_BEGIN_TILE(1, sums + kTileRows);
  if constexpr (R == 2) VLM_BEGIN_TILE(2, below);
  if constexpr (R == 2 && C == 2) VLM_BEGIN_TILE(3, below + kTileRows);
  for (std::int64_t i = 0; i < rows.steps; ++i) {
    _tile_loadd(4, left, rows.row);
    _tile_loadd(6, right, from);
    add_products<0>(sums);
    if constexpr (C == 2) {
      _tile_loadd(7, right + kTileBytes, from);
      add_products<1>(sums);
    }
    if constexpr (R == 2) {
      _tile_loadd(5, second, rows.row);
      add_products<2>(sums);
      if constexpr (C == 2) add_products<3>(sums);
    }
    left += rows.step;
    second += rows.step;
    right += kTileRows * from;
  }
  _tile_stored(0, sums, to);
  if constexpr (C == 2) _tile_stored(1, sums + kTileRows, to);
  if constexpr (R == 2) _tile_stored(2, below, to);
  if constexpr (R == 2 && C == 2) _tile_stored(3, below + kTileRows, to);
}

template <int C, typename Value, typename Sum>
VLM_TILES VLM_INLINE void add_tile_columns(const TileRows& rows, const TilePanel<Value>& right,
                                           std::int64_t column, const TileSums<Sum>& sums) {
  const auto* panel = reinterpret_cast<const std::byte*>(right.data) + column * 4;
  const std::int64_t from = right.stride * 4, to = sums.stride * 4;
  std::int64_t row = 0;
  for (; row + kTileRows < rows.rows; row += 2 * kTileRows) {
    add_tiles<2, C>(rows, rows.data + row / kTileRows * rows.group, panel, from,
                    sums.data + row * sums.stride + column, to, sums.is_added);
  }
  if (row < rows.rows) {
    add_tiles<1, C>(rows, rows.data + row / kTileRows * rows.group, panel, from,
                    sums.data + row * sums.stride + column, to, sums.is_added);
  }
}

template <typename Value, typename Sum>
VLM_TILES VLM_INLINE void add_all_tiles(const TileRows& rows, const TilePanel<Value>& right,
                                        const TileSums<Sum>& sums) {
  // The compiler doesn't know that tiles read and write memory.
  __asm__ volatile("" ::: "memory");
  std::int64_t column = 0;
  for (; column + kTileRows < right.columns; column += 2 * kTileRows) {
    add_tile_columns<2>(rows, right, column, sums);
  }
  if (column < right.columns) add_tile_columns<1>(rows, right, column, sums);
  __asm__ volatile("" ::: "memory");
}

VLM_TILES void configure_tiles() {
  _tile_loadconfig(&kTileShapes);
}

VLM_TILES void release_tiles() {
  _tile_release();
}

bool can_use(const char* name) {
  static const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto found = capabilities.find(name);
  return found != capabilities.end() && found->second.isBool() && found->second.toBool();
}

}  // namespace

bool has_tiles() {
  static const bool is_usable = can_use("amx_bf16") && can_use("amx_int8") && at::cpu::init_amx();
  return is_usable;
}

TileUse::TileUse() {
  configure_tiles();
}

TileUse::~TileUse() {
  release_tiles();
}

VLM_TILES void multiply_tiles(const TileRows& left, const TilePanel<std::uint16_t>& right,
                              const TileSums<float>& sums) {
  add_all_tiles(left, right, sums);
}

VLM_TILES void multiply_tiles(const TileRows& left, const TilePanel<std::int8_t>& right,
                              const TileSums<std::int32_t>& sums) {
  add_all_tiles(left, right, sums);
}

#else

bool has_tiles() {
  return false;
}
TileUse::TileUse() = default;
TileUse::~TileUse() = default;
void multiply_tiles(const TileRows&, const TilePanel<std::uint16_t>&, const TileSums<float>&) {
  std::abort();
}
void multiply_tiles(const TileRows&, const TilePanel<std::int8_t>&, const TileSums<std::int32_t>&) {
  std::abort();
}

#endif

}  // namespace vlm

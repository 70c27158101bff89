// Products in the processor's tiles: those of oneDNN's blocks, bit for bit where steps are whole.
#include "vlm/nn/cpu/panels/tiles.h"

#include <ATen/ATen.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/support/catch.h"
#include "vlm/core/concat.h"

namespace vlm {
namespace {

using at::native::cpublas::brgemm;

constexpr std::int64_t kMostRows = 64, kMostColumns = 64;

bool has_them() {
  if (!has_tiles()) WARN("this processor has no tiles: not tested");
  return has_tiles();
}

// The same rows, packed. `memory` holds them.
TileRows packed(const void* from, std::int64_t rows, std::int64_t bytes,
                std::vector<std::byte>& memory) {
  memory.assign(static_cast<std::size_t>(packed_tile_bytes(rows, bytes)), std::byte{0xFF});
  pack_tiles(from, rows, bytes, bytes, memory.data());
  return TileRows::packed(memory.data(), rows, (bytes + kTileBytes - 1) / kTileBytes);
}

TEST_CASE("tiles in bfloat16: the sums of oneDNN's blocks, packed or not, new or added") {
  if (!has_them()) return;
  at::manual_seed(2);
  for (const std::int64_t depth : {2, 32, 66, 512}) {
    const std::int64_t whole = (depth + 31) / 32 * 32;
    const at::Tensor left = at::randn({kMostRows, depth}).to(at::kBFloat16);
    at::Tensor right = at::zeros({whole / 2, kMostColumns, 2}, at::kBFloat16);
    right.narrow(0, 0, depth / 2).copy_(at::randn({depth / 2, kMostColumns, 2}));
    const at::Tensor before = at::randn({kMostRows, kMostColumns});
    std::vector<std::byte> memory;
    for (const std::int64_t rows : {1, 16, 17, 33, 48, 64}) {
      for (const std::int64_t columns : {16, 32, 48, 64}) {
        for (const bool is_added : {false, true}) {
          INFO(concat(rows, " x ", depth, " x ", columns, ", added ", is_added));
          at::Tensor wanted = before.clone(), found = before.clone(), plain = before.clone();
          const auto* panel = static_cast<const std::uint16_t*>(right.const_data_ptr());
          brgemm(rows, columns, depth, depth, kMostColumns, kMostColumns, is_added,
                 left.const_data_ptr<at::BFloat16>(), right.const_data_ptr<at::BFloat16>(),
                 wanted.mutable_data_ptr<float>());
          at::native::cpublas::brgemm_release();
          const TileRows tiles = packed(left.const_data_ptr(), rows, depth * 2, memory);
          {
            const TileUse use;
            multiply_tiles(tiles, {panel, kMostColumns, columns},
                           {found.mutable_data_ptr<float>(), kMostColumns, is_added});
            if (depth == whole) {
              multiply_tiles(TileRows::plain(left.const_data_ptr(), rows, depth / 32, depth * 2),
                             {panel, kMostColumns, columns},
                             {plain.mutable_data_ptr<float>(), kMostColumns, is_added});
            }
          }
          const auto part = [&](const at::Tensor& t) {
            return t.narrow(0, 0, rows).narrow(1, 0, columns);
          };
          // What is behind the last whole step is summed in another order there.
          CHECK(part(found).allclose(part(wanted), depth == whole ? 0 : 1e-5,
                                     depth == whole ? 0 : 1e-5));
          if (depth == whole) CHECK(part(plain).equal(part(wanted)));
          // Other columns are left alone.
          const std::int64_t rest = kMostColumns - columns;
          CHECK(found.narrow(1, columns, rest).equal(before.narrow(1, columns, rest)));
        }
      }
    }
  }
}

TEST_CASE("tiles of codes: whole sums of unsigned and signed numbers") {
  if (!has_them()) return;
  at::manual_seed(3);
  for (const std::int64_t depth : {4, 64, 200}) {
    const std::int64_t whole = (depth + 63) / 64 * 64;
    const at::Tensor left = at::randint(0, 256, {kMostRows, depth}).to(at::kByte);
    const at::Tensor x = at::randint(-127, 128, {kMostColumns, depth}).to(at::kChar);
    at::Tensor right = at::zeros({whole / 4, kMostColumns, 4}, at::kChar);
    right.narrow(0, 0, depth / 4).copy_(x.view({kMostColumns, depth / 4, 4}).transpose(0, 1));
    const at::Tensor wanted = left.to(at::kDouble).matmul(x.to(at::kDouble).t()).to(at::kInt);
    std::vector<std::byte> memory;
    for (const std::int64_t rows : {1, 16, 31, 64}) {
      INFO(concat(rows, " x ", depth));
      const TileRows tiles = packed(left.const_data_ptr(), rows, depth, memory);
      at::Tensor found = at::zeros({kMostRows, kMostColumns}, at::kInt);
      {
        const TileUse use;
        multiply_tiles(tiles, {right.const_data_ptr<std::int8_t>(), kMostColumns, kMostColumns},
                       {found.mutable_data_ptr<std::int32_t>(), kMostColumns});
      }
      CHECK(found.narrow(0, 0, rows).equal(wanted.narrow(0, 0, rows)));
    }
  }
}

TEST_CASE("memory for tiles grows, and stays where it is enough") {
  std::byte* small = tile_scratch(100);
  CHECK(tile_scratch(2 << 20) == small);
  std::byte* large = tile_scratch(5 << 20);
  std::fill_n(large, 5 << 20, std::byte{1});
  CHECK(tile_scratch(100) == large);
}

}  // namespace
}  // namespace vlm

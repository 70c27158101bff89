// Attention to a cache: as over whole sequences, for every edge of its chunks.
#include "vlm/nn/cpu/cached_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <bit>
#include <limits>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/cpu/kv_rows.h"

namespace vlm {
namespace {

struct CacheShape {
  std::int64_t heads, kv_heads, depth, rows_per_group;
};

// A cache of random prefixes and tails, and new tokens behind them.
struct Scene {
  CachedLayer layer;  // float32
  std::vector<CachedTokens> tokens;
  at::Tensor q, k, v;  // [B, heads, T, depth], as projections leave them

  // lengths: prefix of each group; tail and new tokens of each row
  Scene(const CacheShape& shape, const std::vector<std::int64_t>& prefixes,
        const std::vector<std::pair<std::int64_t, std::int64_t>>& rows) {
    const auto groups = static_cast<std::int64_t>(prefixes.size());
    std::int64_t most = 0, room = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const std::int64_t group = row / shape.rows_per_group;
      tokens.push_back({.group = group,
                        .row = row,
                        .prefix = prefixes[static_cast<std::size_t>(group)],
                        .tail = rows[i].first,
                        .count = rows[i].second});
      most = std::max(most, rows[i].second);
      room = std::max(room, rows[i].first + rows[i].second);
    }
    const std::int64_t longest = *std::max_element(prefixes.begin(), prefixes.end()) + 3;
    const auto held = [&](std::int64_t places, std::int64_t length) {
      return at::randn({places, shape.kv_heads, length, shape.depth});
    };
    layer = {held(groups, longest), held(groups, longest), held(std::ssize(rows), room),
             held(std::ssize(rows), room)};
    const auto made = [&](std::int64_t heads) {
      return at::randn({std::ssize(rows), most, heads, shape.depth}).transpose(1, 2);
    };
    q = made(shape.heads);
    k = made(shape.kv_heads);
    v = made(shape.kv_heads);
  }

  // Of one row, by attention over its whole sequence. [heads, count, depth]
  at::Tensor expected(std::size_t i) const {
    const CachedTokens& one = tokens[i];
    const auto row = static_cast<std::int64_t>(i);
    const auto whole = [&](const at::Tensor& prefix, const at::Tensor& tail,
                           const at::Tensor& own) {
      return at::cat({prefix[one.group].narrow(1, 0, one.prefix),
                      tail[one.row].narrow(1, 0, one.tail), own[row].narrow(1, 0, one.count)},
                     1)
          .unsqueeze(0);
    };
    const at::Tensor keys = whole(layer.prefix_k, layer.tail_k, k);
    const at::Tensor mask =
        at::ones({one.count, keys.size(2)}, at::kBool).tril(one.prefix + one.tail);
    return grouped_attention(q[row].narrow(1, 0, one.count).unsqueeze(0), keys,
                             whole(layer.prefix_v, layer.tail_v, v), mask, false)[0];
  }
};

// Attention to what is held so is that of float32 to what comes back from it.
void check_scene(Scene scene, at::ScalarType held = at::kFloat) {
  const auto hold = [&](at::Tensor& rows) {
    const at::Tensor kept = encode_rows(rows, held);
    rows = decode_rows(kept, rows.size(-1));
    return kept;
  };
  const CachedLayer layer{hold(scene.layer.prefix_k), hold(scene.layer.prefix_v),
                          hold(scene.layer.tail_k), hold(scene.layer.tail_v)};
  const at::Tensor k = scene.k, v = scene.v;
  hold(scene.k);
  hold(scene.v);
  std::vector<at::Tensor> expected;
  for (std::size_t i = 0; i < scene.tokens.size(); ++i) expected.push_back(scene.expected(i));
  const at::Tensor found = cached_attention(scene.q, k, v, layer, scene.tokens);
  REQUIRE(found.sizes() == scene.q.sizes());
  CHECK(found.transpose(1, 2).is_contiguous());
  for (std::size_t i = 0; i < scene.tokens.size(); ++i) {
    const CachedTokens& one = scene.tokens[i];
    const auto row = static_cast<std::int64_t>(i);
    check_close(found[row].narrow(1, 0, one.count), expected[i], 2e-6);
    CHECK(found[row].narrow(1, one.count, found.size(2) - one.count).eq(0).all().item<bool>());
    const auto kept = [&](const at::Tensor& tail, const at::Tensor& own) {
      return tail[one.row]
          .narrow(1, one.tail, one.count)
          .equal(encode_rows(own[row].narrow(1, 0, one.count), held));
    };
    CHECK(kept(layer.tail_k, k));
    CHECK(kept(layer.tail_v, v));
  }
}

TEST_CASE("attention to a cache: as over whole sequences, for every edge of its chunks") {
  at::manual_seed(1);
  // Chunks of 256 keys and 16 of them at a time; heads of one vector, of four, and of more.
  for (const std::int64_t prefix : {1, 15, 16, 17, 255, 256, 257, 700}) {
    INFO(concat("prefix ", prefix));
    check_scene({{.heads = 9, .kv_heads = 3, .depth = 64, .rows_per_group = 1},
                 {prefix, 5},
                 {{0, 1}, {300, 1}}});
    check_scene({{.heads = 4, .kv_heads = 4, .depth = 16, .rows_per_group = 3},
                 {prefix},
                 {{prefix, 1}, {0, 16}, {17, 3}}});
    check_scene({{.heads = 2, .kv_heads = 1, .depth = 80, .rows_per_group = 2},
                 {prefix, prefix + 1},
                 {{2, 4}, {250, 9}, {255, 2}, {256, 1}}});
  }
}

TEST_CASE("attention to a cache: of bfloat16 and of 8 bits as of the numbers that they stand for") {
  at::manual_seed(4);
  for (const at::ScalarType held : {at::kBFloat16, at::kChar}) {
    INFO(held);
    for (const std::int64_t prefix : {1, 17, 256, 300}) {
      check_scene({{.heads = 9, .kv_heads = 3, .depth = 64, .rows_per_group = 1},
                   {prefix, 5},
                   {{0, 1}, {300, 1}}},
                  held);
      check_scene({{.heads = 2, .kv_heads = 1, .depth = 80, .rows_per_group = 2},
                   {prefix, prefix + 1},
                   {{2, 4}, {250, 9}, {255, 2}, {256, 1}}},
                  held);
    }
  }
}

TEST_CASE("attention to a cache: a row gets the same alone, and with one thread") {
  at::manual_seed(2);
  const Scene scene({.heads = 6, .kv_heads = 2, .depth = 32, .rows_per_group = 2}, {600, 90},
                    {{5, 2}, {270, 1}, {0, 1}, {33, 2}});
  const auto run = [&](const std::vector<CachedTokens>& tokens, std::int64_t first) {
    const auto own = [&](const at::Tensor& t) { return t.narrow(0, first, std::ssize(tokens)); };
    return cached_attention(own(scene.q), own(scene.k), own(scene.v), scene.layer, tokens);
  };
  const at::Tensor together = run(scene.tokens, 0);
  for (std::size_t i = 0; i < scene.tokens.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    CHECK(run({scene.tokens[i]}, row)[0].equal(together[row]));
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK(run(scene.tokens, 0).equal(together));
  at::set_num_threads(threads);
}

TEST_CASE("attention to a cache: scores far apart") {
  at::manual_seed(3);
  Scene scene({.heads = 2, .kv_heads = 2, .depth = 16, .rows_per_group = 1}, {300}, {{20, 2}});
  scene.q.mul_(40);
  scene.layer.prefix_k.mul_(5);
  check_scene(scene);
}

// NaN as files and operations leave it: quiet, with a payload, all bits set.
const std::array<std::uint32_t, 4> kNotNumbers = {0x7FC00000, 0xFFC00000, 0x7FC00101, 0xFFFFFFFF};

TEST_CASE("attention to a cache: what is no number shows where LibTorch shows it") {
  at::manual_seed(5);
  for (const std::uint32_t bits : kNotNumbers) {
    for (const std::int64_t key : {0, 5, 15, 16, 255, 256, 299}) {
      INFO(concat("bits ", bits, ", key ", key));
      Scene scene({.heads = 4, .kv_heads = 2, .depth = 32, .rows_per_group = 1}, {300, 9},
                  {{2, 1}, {40, 1}});
      const float none = std::bit_cast<float>(bits);
      // One key of one head, one number of one value, and one head's query of the other row.
      scene.layer.prefix_k[0][1][key][3] = none;
      scene.layer.prefix_v[0][0][key][7] = none;
      scene.q[1][2][0][31] = none;
      std::vector<at::Tensor> expected = {scene.expected(0), scene.expected(1)};
      const at::Tensor found =
          cached_attention(scene.q, scene.k, scene.v, scene.layer, scene.tokens);
      const at::Tensor wanted = at::stack(expected);  // [B, H, T, D]
      CHECK(found.isnan().equal(wanted.isnan()));
      CHECK(wanted.isnan().sum().item<std::int64_t>() == 2 * 32 + 2 + 32);
      check_close(found.nan_to_num(), wanted.nan_to_num(), 2e-6);
    }
  }
}

TEST_CASE("attention to a cache: infinite scores as LibTorch has them") {
  at::manual_seed(6);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {infinity, -infinity}) {
    for (const std::int64_t first : {0, 280}) {  // a whole chunk, or a part
      Scene scene({.heads = 2, .kv_heads = 1, .depth = 16, .rows_per_group = 1}, {300}, {{3, 1}});
      scene.layer.prefix_k.slice(2, first, 290).select(3, 0).fill_(value);
      scene.q.select(3, 0).abs_();
      const at::Tensor found =
          cached_attention(scene.q, scene.k, scene.v, scene.layer, scene.tokens)[0];
      const at::Tensor wanted = scene.expected(0);
      CHECK(found.isnan().equal(wanted.isnan()));
      CHECK(wanted.isnan().any().item<bool>() == (value > 0));
      check_close(found.nan_to_num(), wanted.nan_to_num(), 2e-6);
    }
  }
}

TEST_CASE("attention to a cache is for a few tokens in float32 on a CPU") {
  CHECK(can_attend_to_cache(at::kFloat, 1, 64));
  CHECK(can_attend_to_cache(at::kFloat, 16, 16));
  CHECK_FALSE(can_attend_to_cache(at::kFloat, 17, 64));
  CHECK_FALSE(can_attend_to_cache(at::kFloat, 1, 72));
  CHECK_FALSE(can_attend_to_cache(at::kBFloat16, 1, 64));
  CHECK_FALSE(can_attend_to_cache(at::TensorOptions(at::kFloat).device(at::kCUDA), 1, 64));
}

}  // namespace
}  // namespace vlm

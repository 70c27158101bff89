#include "vlm/nn/cpu/bfloat16/bfloat16_attention.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_panels.h"
#include "vlm/nn/cpu/lanes.h"
#include "vlm/nn/cpu/panels/tiles.h"

namespace vlm {
namespace {

constexpr std::int64_t kBlockQueries = 64;
constexpr std::int64_t kBlockKeys = 512;               // a block of scores is 128 kB
constexpr std::int64_t kTileNumbers = kTileBytes / 2;  // numbers of a row in a step of tiles

// Calls work(rows) with one head's queries, keys or values.
template <typename Work>
void with_head(const at::Tensor& t, std::int64_t batch, std::int64_t head, const Work& work) {
  const std::int64_t first = batch * t.stride(0) + head * t.stride(1);
  if (t.scalar_type() == at::kBFloat16) {
    work(NarrowRows{words_of(t) + first, t.size(2), t.size(3), t.stride(2)});
  } else {
    work(FloatRows{t.const_data_ptr<float>() + first, t.size(2), t.size(3), t.stride(2)});
  }
}

VLM_INLINE Words load_words(const float* from) {
  return load_lanes<Words>(from);
}
// Their upper halves are what round_pairs leaves.
VLM_INLINE Words load_words(const std::uint16_t* from) {
  return __builtin_convertvector(load_lanes<Halves>(from), Words) << 16;
}
VLM_INLINE std::uint16_t narrow_value(float value) {
  return round_to_bfloat16(value);
}
VLM_INLINE std::uint16_t narrow_value(std::uint16_t value) {
  return value;
}

template <typename Value>
VLM_INLINE void pack_value_pairs(const RowsOf<Value>& v, std::int64_t keys, std::uint16_t* to) {
  for (std::int64_t s = 0; s < v.rows; s += 2) {
    const Value* from = v.data + s * v.stride;
    const bool has_second = s + 1 < v.rows;
    std::int64_t d = 0;
    for (; d + kLanes <= v.depth; d += kLanes) {
      const Words first = load_words(from + d);
      const Words second = has_second ? load_words(from + v.stride + d) : Words{};
      const Words pairs = round_pairs(first, second);
      std::memcpy(to + d / kPanel * kPanel * keys + s * kPanel + d % kPanel * 2, &pairs,
                  sizeof pairs);
    }
    for (; d < v.depth; ++d) {
      std::uint16_t* pair = to + d / kPanel * kPanel * keys + s * kPanel + d % kPanel * 2;
      pair[0] = narrow_value(from[d]);
      if (has_second) pair[1] = narrow_value(from[v.stride + d]);
    }
  }
}

// v: a panel of all keys for every 64 of its columns.
VLM_CLONES void pack_values(const FloatRows& v, std::int64_t keys, std::uint16_t* to) {
  pack_value_pairs(v, keys, to);
}
VLM_CLONES void pack_values(const NarrowRows& v, std::int64_t keys, std::uint16_t* to) {
  pack_value_pairs(v, keys, to);
}

// What a block of queries knows of the keys so far.
struct Progress {
  float largest[kBlockQueries];  // score, in units of log2
  float sums[kBlockQueries];
};

// Scores of `keys` keys (a multiple of the panel) → weights in bfloat16; what was summed for
// earlier keys, `out` [queries, width], is scaled to the new largest score. Query i sees the keys
// below first_limit + i × step.
struct SoftmaxBlock {
  float* scores;           // [queries, keys]
  std::uint16_t* weights;  // [queries, keys], packed as tiles are where `is_tiled`
  bool is_tiled;
  float* out;  // [queries, width]
  std::int64_t keys, width, first_limit, step;
  float scale;  // to units of log2
};

// The place of the weights of query i and keys j … j + 31, which follow each other.
VLM_INLINE std::uint16_t* place_of_weights(const SoftmaxBlock& block, std::int64_t i,
                                           std::int64_t j) {
  if (!block.is_tiled) return block.weights + i * block.keys + j;
  const std::int64_t group = i / kTileRows * kTileRows * block.keys;
  return block.weights + group + j / kTileNumbers * kTileRows * kTileNumbers +
         i % kTileRows * kTileNumbers;
}

// The largest of `count` numbers, a multiple of the panel.
VLM_INLINE float largest_of(const float* values, std::int64_t count) {
  constexpr int kChains = kPanel / kLanes;  // that don't wait for each other
  Floats most[kChains];
  for (Floats& one : most) one = Floats{} - std::numeric_limits<float>::infinity();
  for (std::int64_t j = 0; j < count; j += kPanel) {
    for (int k = 0; k < kChains; ++k)
      most[k] = larger(most[k], load_lanes<Floats>(values + j + k * kLanes));
  }
  for (int k = 1; k < kChains; ++k) most[0] = larger(most[0], most[k]);
  return largest_lane(most[0]);
}

// Any processor's rounding to bfloat16, of 32 numbers.
struct RoundedWords {
  VLM_INLINE static void store(Floats first, Floats second, std::uint16_t* to) {
    const Halves low = __builtin_convertvector(round_pairs((Words)first, Words{}), Halves);
    const Halves high = __builtin_convertvector(round_pairs((Words)second, Words{}), Halves);
    std::memcpy(to, &low, sizeof low);
    std::memcpy(to + kLanes, &high, sizeof high);
  }
};

template <typename Rounded>
VLM_INLINE void soften_rows(SoftmaxBlock block, Progress& progress) {
  for (std::int64_t i = 0; i < kBlockQueries; ++i) {
    float* scores = block.scores + i * block.keys;
    const std::int64_t limit = std::max<std::int64_t>(block.first_limit + i * block.step, 0);
    for (std::int64_t j = limit; j < block.keys; ++j) {
      scores[j] = -std::numeric_limits<float>::infinity();
    }
    float largest = std::max(progress.largest[i], largest_of(scores, block.keys) * block.scale);
    if (largest == -std::numeric_limits<float>::infinity()) largest = 0;  // sees nothing yet
    Floats sums[1] = {}, others = {};
    for (std::int64_t j = 0; j < block.keys; j += 2 * kLanes) {
      const Floats first = fast_exp2(load_lanes<Floats>(scores + j) * block.scale - largest);
      const Floats second =
          fast_exp2(load_lanes<Floats>(scores + j + kLanes) * block.scale - largest);
      sums[0] += first;
      others += second;
      Rounded::store(first, second, place_of_weights(block, i, j));
    }
    sums[0] += others;
    const float factor = std::exp2(progress.largest[i] - largest);
    progress.largest[i] = largest;
    progress.sums[i] = progress.sums[i] * factor + add_lanes(sums)[0];
    float* out = block.out + i * block.width;
    for (std::int64_t d = 0; d < block.width; ++d) out[d] *= factor;
  }
}

VLM_CLONES void soften_anywhere(const SoftmaxBlock& block, Progress& progress) {
  soften_rows<RoundedWords>(block, progress);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

// The processor's own, for weights, which are never as small as those that it takes for zero.
struct RoundedAtOnce {
  VLM_INLINE static void store(Floats first, Floats second, std::uint16_t* to) {
    Words pairs;  // one store, so that a tile is read from it without waiting
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(pairs) : "v"(second), "v"(first));
    std::memcpy(to, &pairs, sizeof pairs);
  }
};

__attribute__((target("arch=x86-64-v4,avx512bf16"))) void soften_at_once(const SoftmaxBlock& block,
                                                                         Progress& progress) {
  soften_rows<RoundedAtOnce>(block, progress);
}

void soften(const SoftmaxBlock& block, Progress& progress) {
  static const bool is_at_once =
      __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512vl") != 0;
  is_at_once ? soften_at_once(block, progress) : soften_anywhere(block, progress);
}

#else

void soften(const SoftmaxBlock& block, Progress& progress) {
  soften_anywhere(block, progress);
}

#endif

VLM_CLONES void scale_row(const float* from, std::int64_t count, float factor, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i] * factor;
}
VLM_CLONES void scale_row(const float* from, std::int64_t count, float factor, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = round_to_bfloat16(from[i] * factor);
}

// Buffers of one thread.
struct Scratch {
  LineVector<std::uint16_t> queries, weights;
  LineVector<float> scores, out;
};

// Keys and values of one head, packed.
struct PackedHead {
  const std::uint16_t *keys, *values;
};

class BlockAttention {
 public:
  BlockAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool is_causal)
      : q_(q),
        k_(k),
        v_(v),
        is_causal_(is_causal),
        is_tiled_(has_tiles()),
        depth_(q.size(3)),
        padded_(round_up(depth_, kTileNumbers)),
        keys_(round_up(k.size(2), kPanel)),
        width_(round_up(depth_, kPanel)),
        packed_keys_(at::zeros({k.size(0) * k.size(1), keys_ * padded_}, at::kBFloat16)),
        packed_values_(at::zeros({k.size(0) * k.size(1), keys_ * width_}, at::kBFloat16)) {}

  at::Tensor run() {
    const std::int64_t kv_heads = k_.size(1), heads = q_.size(1);
    run_pieces(packed_keys_.size(0), [&](std::int64_t i) {
      const std::int64_t batch = i / kv_heads, head = i % kv_heads;
      with_head(k_, batch, head, [&](const auto& keys) {
        for (std::int64_t first = 0; first < keys.rows; first += kPanel) {
          pack_transposed(keys.from(first, kPanel), kPanel,
                          row_of(packed_keys_, i) + first * padded_);
        }
      });
      with_head(v_, batch, head,
                [&](const auto& v) { pack_values(v, keys_, row_of(packed_values_, i)); });
    });
    at::Tensor out = at::empty({q_.size(0), q_.size(2), heads, depth_}, q_.options());
    const std::int64_t blocks = round_up(q_.size(2), kBlockQueries) / kBlockQueries;
    run_pieces(q_.size(0) * heads * blocks, [&](std::int64_t i) {
      // A head's blocks follow each other, as its keys and values stay in the cache. Later blocks
      // see more keys: they come first, so that threads end together.
      const std::int64_t block = blocks - 1 - i % blocks, row = i / blocks;
      attend(row / heads, row % heads, block * kBlockQueries, out);
    });
    return out.transpose(1, 2);
  }

 private:
  static std::uint16_t* row_of(const at::Tensor& packed, std::int64_t row) {
    return static_cast<std::uint16_t*>(packed.data_ptr()) + row * packed.size(1);
  }

  // One block of one head's queries.
  void attend(std::int64_t batch, std::int64_t head, std::int64_t begin, at::Tensor& out) const {
    thread_local Scratch scratch;
    scratch.queries.assign(static_cast<std::size_t>(kBlockQueries * padded_), 0);
    scratch.weights.resize(kBlockQueries * kBlockKeys);
    scratch.scores.resize(kBlockQueries * kBlockKeys);
    scratch.out.assign(static_cast<std::size_t>(kBlockQueries * width_), 0.0F);
    with_head(q_, batch, head, [&](const auto& all) {
      round_rows(all.from(begin, kBlockQueries), scratch.queries.data(), padded_);
    });
    Progress progress;
    std::fill_n(progress.largest, kBlockQueries, -std::numeric_limits<float>::infinity());
    std::fill_n(progress.sums, kBlockQueries, 0.0F);
    const std::int64_t kv_row = batch * k_.size(1) + head / (q_.size(1) / k_.size(1));
    const PackedHead kv{row_of(packed_keys_, kv_row), row_of(packed_values_, kv_row)};
    const std::int64_t all = k_.size(2);
    const std::int64_t first = is_causal_ ? all - q_.size(2) + begin + 1 : all;  // first query's
    const std::int64_t last = is_causal_ ? std::min(first + kBlockQueries - 1, all) : all;
    std::optional<TileUse> tiles;
    if (is_tiled_) tiles.emplace();
    for (std::int64_t key = 0; key < last; key += kBlockKeys) {
      add_keys(kv, key, std::min(kBlockKeys, round_up(last - key, kPanel)), first - key, scratch,
               progress);
    }
    if (!is_tiled_) at::native::cpublas::brgemm_release();
    const std::int64_t place = batch * out.stride(0) + head * out.stride(2);
    if (out.scalar_type() == at::kBFloat16) {
      store_rows_of(scratch, progress, begin, out, words_of(out) + place);
    } else {
      store_rows_of(scratch, progress, begin, out, out.mutable_data_ptr<float>() + place);
    }
  }

  // The block's results from query `begin` on.
  template <typename Value>
  void store_rows_of(const Scratch& scratch, const Progress& progress, std::int64_t begin,
                     const at::Tensor& out, Value* to) const {
    const std::int64_t count = std::min(kBlockQueries, q_.size(2) - begin);
    for (std::int64_t i = 0; i < count; ++i) {
      scale_row(scratch.out.data() + i * width_, depth_, 1.0F / progress.sums[i],
                to + (begin + i) * out.stride(1));
    }
  }

  // Keys `begin` … of `count`; the first query sees those below begin + first_limit.
  void add_keys(const PackedHead& kv, std::int64_t begin, std::int64_t count,
                std::int64_t first_limit, Scratch& scratch, Progress& progress) const {
    for (std::int64_t j = 0; j < count; j += kPanel) {
      multiply_keys(scratch.queries.data(), kv.keys + (begin + j) * padded_,
                    scratch.scores.data() + j, count);
    }
    // Query i of a causal block sees one key more than the one before it; nobody sees padding.
    soften({.scores = scratch.scores.data(),
            .weights = scratch.weights.data(),
            .is_tiled = is_tiled_,
            .out = scratch.out.data(),
            .keys = count,
            .width = width_,
            .first_limit = first_limit,
            .step = is_causal_ ? 1 : 0,
            .scale = kLog2E / std::sqrt(static_cast<float>(depth_))},
           progress);
    for (std::int64_t d = 0; d < width_; d += kPanel) {
      add_values(scratch.weights.data(), kv.values + d * keys_ + begin * kPanel, count,
                 scratch.out.data() + d, std::min(kPanel, round_up(depth_ - d, kTileRows)));
    }
  }

  // Scores of a panel of keys, in rows of `stride`.
  void multiply_keys(const std::uint16_t* queries, const std::uint16_t* keys, float* scores,
                     std::int64_t stride) const {
    if (is_tiled_) {
      return multiply_tiles(
          TileRows::plain(queries, kBlockQueries, padded_ / kTileNumbers, padded_ * 2),
          {keys, kPanel, kPanel}, {scores, stride});
    }
    at::native::cpublas::brgemm(kBlockQueries, kPanel, depth_, padded_, kPanel, stride,
                                /*add_C=*/false, as_bfloat16(queries), as_bfloat16(keys), scores);
  }

  // Adds `keys` values by their weights, of which `columns` columns are there.
  void add_values(const std::uint16_t* weights, const std::uint16_t* values, std::int64_t keys,
                  float* out, std::int64_t columns) const {
    if (is_tiled_) {
      const auto* rows = reinterpret_cast<const std::byte*>(weights);
      return multiply_tiles(TileRows::packed(rows, kBlockQueries, keys / kTileNumbers),
                            {values, kPanel, columns}, {out, width_, /*is_added=*/true});
    }
    at::native::cpublas::brgemm(kBlockQueries, kPanel, keys, keys, kPanel, width_, /*add_C=*/true,
                                as_bfloat16(weights), as_bfloat16(values), out);
  }

  const at::Tensor &q_, &k_, &v_;
  bool is_causal_, is_tiled_;
  std::int64_t depth_;                      // of a head
  std::int64_t padded_;                     // the same in whole steps of tiles
  std::int64_t keys_;                       // padded to whole panels
  std::int64_t width_;                      // depth padded to whole panels
  at::Tensor packed_keys_, packed_values_;  // [B·K, …]
};

}  // namespace

bool can_attend_in_bfloat16(const at::Tensor& q) {
  const bool is_known = q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16;
  return has_panel_products() && q.is_cpu() && is_known && q.size(3) % 2 == 0;
}

at::Tensor bfloat16_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool is_causal) {
  TORCH_CHECK(q.size(1) % k.size(1) == 0 && k.sizes() == v.sizes() && q.size(3) == k.size(3) &&
                  q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() &&
                  (!is_causal || q.size(2) <= k.size(2)),
              "bfloat16_attention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes());
  const auto rows = [](const at::Tensor& t) { return t.stride(3) == 1 ? t : t.contiguous(); };
  const at::Tensor own_q = rows(q), own_k = rows(k), own_v = rows(v);
  return BlockAttention(own_q, own_k, own_v, is_causal).run();
}

}  // namespace vlm

#include "vlm/nn/cpu/cached_attention.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/kv_rows.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kMostTokens = 16;  // of a sequence; more are quicker as matrix products
constexpr std::int64_t kChunkKeys = 256;
constexpr std::int64_t kSerialWork = 64 * 1024;  // products that aren't worth another thread
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Keys and values of one head, [count, depth] each, rows `step` bytes apart.
struct Chunk {
  const std::byte *keys, *values;
  std::int64_t count, depth, step;
};

// What a query found in one chunk; its weighted values follow, [depth].
struct Found {
  float largest;  // score, in units of log2
  float sum;      // of weights 2^(score - largest)
};
constexpr std::int64_t kFoundFloats = sizeof(Found) / sizeof(float);

// `Heads` queries that share a head of keys, side by side, and what each finds in a chunk.
struct Queries {
  const float* q;  // [Heads, depth], in units of log2
  float* found;    // of the first; the others' are `step` floats apart
  std::int64_t step;
};

constexpr int kMostHeads = 4;  // more are taken in several turns

// Keys that are multiplied at a time: sums of all queries with them are 16 vectors.
template <int Heads>
constexpr int keys_at_once = Heads == 1   ? 16
                             : Heads == 2 ? 8
                                          : 4;

// Products of the queries with some keys, of which those behind `last` aren't there: it is taken
// again.
template <typename Held, int Heads>
VLM_INLINE void multiply_keys(const Chunk& chunk, std::int64_t first, std::int64_t last,
                              const float* q, float (*scores)[kChunkKeys]) {
  constexpr int kKeys = keys_at_once<Heads>;
  const std::byte* rows[kKeys];
  for (int i = 0; i < kKeys; ++i) {
    rows[i] = chunk.keys + (first + std::min<std::int64_t>(i, last)) * chunk.step;
  }
  Floats sums[kLanes] = {};
  const auto add = [&](std::int64_t d, const auto& load) __attribute__((always_inline)) {
    Floats parts[Heads];
#pragma GCC unroll 4
    for (int h = 0; h < Heads; ++h) parts[h] = load_lanes<Floats>(q + h * chunk.depth + d);
#pragma GCC unroll 16
    for (int i = 0; i < kKeys; ++i) {
      const Floats key = load(rows[i]);
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h) sums[h * kKeys + i] += parts[h] * key;
    }
  };
  std::int64_t d = 0;
  for (; d + kBlock <= chunk.depth; d += kBlock) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      add(
          d + j * kLanes, [&](const std::byte* row) __attribute__((always_inline)) {
            return Held::load_part(row, d, j);
          });
    }
  }
  for (; d < chunk.depth; d += kLanes) {
    add(
        d, [&](const std::byte* row) __attribute__((always_inline)) { return Held::load(row, d); });
  }
  float totals[kLanes];
  const Floats found = add_lanes(sums);
  std::memcpy(totals, &found, sizeof totals);
  for (int h = 0; h < Heads; ++h) {
    for (int i = 0; i < kKeys; ++i) {
      scores[h][first + i] = totals[h * kKeys + i] * Held::scale(rows[i], chunk.depth);
    }
  }
}

// Scores of the queries; of none behind the last key.
template <typename Held, int Heads>
VLM_INLINE void score_keys(const Chunk& chunk, const float* q, float (*scores)[kChunkKeys]) {
  for (std::int64_t j = 0; j < chunk.count; j += keys_at_once<Heads>) {
    multiply_keys<Held, Heads>(chunk, j, chunk.count - 1 - j, q, scores);
  }
  for (int h = 0; h < Heads; ++h) {
    std::fill(scores[h] + chunk.count, scores[h] + round_up(chunk.count, kLanes), kNothing);
  }
}

// Scores become weights.
VLM_INLINE Found weigh(float* scores, std::int64_t count) {
  Floats most = Floats{} + kNothing;
  for (std::int64_t j = 0; j < count; j += kLanes) {
    most = larger(most, load_lanes<Floats>(scores + j));
  }
  float largest = kNothing;
  for (int lane = 0; lane < kLanes; ++lane) largest = std::max(largest, most[lane]);
  // NaN isn't the largest here; its weight is NaN, and so is the sum of weights. Where all scores
  // are -inf none of the keys counts beside other chunks.
  const float base = largest == kNothing ? 0.0F : largest;
  Floats sums[1] = {};
  for (std::int64_t j = 0; j < count; j += kLanes) {
    const Floats weights = precise_exp2(load_lanes<Floats>(scores + j) - base);
    sums[0] += weights;
    std::memcpy(scores + j, &weights, sizeof weights);
  }
  return {.largest = largest, .sum = add_lanes(sums)[0]};
}

// `Width` vectors of the weighted sums of values, from the d-th number on: a block of 4, or 1
// behind the last whole block.
template <typename Held, int Heads, int Width>
VLM_INLINE void add_values(const Chunk& chunk, std::int64_t d, const float (*weights)[kChunkKeys],
                           const Queries& queries) {
  Floats sums[Heads][Width] = {};
  for (std::int64_t j = 0; j < chunk.count; ++j) {
    const std::byte* row = chunk.values + j * chunk.step;
    const float scale = Held::scale(row, chunk.depth);
    Floats values[Width];
#pragma GCC unroll 4
    for (int i = 0; i < Width; ++i) {
      values[i] = Width == 1 ? Held::load(row, d) : Held::load_part(row, d, i);
    }
#pragma GCC unroll 4
    for (int h = 0; h < Heads; ++h) {
      const float weight = weights[h][j] * scale;
#pragma GCC unroll 4
      for (int i = 0; i < Width; ++i) sums[h][i] += weight * values[i];
    }
  }
  for (int h = 0; h < Heads; ++h) {
    std::memcpy(queries.found + h * queries.step + kFoundFloats + d, sums[h], sizeof sums[h]);
  }
}

// Queries that see all keys of the chunk.
template <typename Held, int Heads>
VLM_INLINE void attend_with(const Chunk& chunk, const Queries& queries) {
  alignas(64) float scores[Heads][kChunkKeys];
  score_keys<Held, Heads>(chunk, queries.q, scores);
  for (int h = 0; h < Heads; ++h) {
    const Found found = weigh(scores[h], chunk.count);
    std::memcpy(queries.found + h * queries.step, &found, sizeof found);
  }
  std::int64_t d = 0;
  for (; d + kBlock <= chunk.depth; d += kBlock) {
    add_values<Held, Heads, 4>(chunk, d, scores, queries);
  }
  for (; d < chunk.depth; d += kLanes) add_values<Held, Heads, 1>(chunk, d, scores, queries);
}

template <typename Held>
VLM_INLINE void attend_to_rows(const Chunk& chunk, const Queries& queries, std::int64_t heads) {
  switch (heads) {
    case 1:
      return attend_with<Held, 1>(chunk, queries);
    case 2:
      return attend_with<Held, 2>(chunk, queries);
    case 3:
      return attend_with<Held, 3>(chunk, queries);
    default:
      return attend_with<Held, kMostHeads>(chunk, queries);
  }
}

// For up to kMostHeads queries.
using AttendToChunk = void (*)(const Chunk&, const Queries&, std::int64_t heads);

VLM_CLONES void attend_to_floats(const Chunk& chunk, const Queries& queries, std::int64_t heads) {
  attend_to_rows<HeldFloats>(chunk, queries, heads);
}

VLM_CLONES void attend_to_bfloat16(const Chunk& chunk, const Queries& queries, std::int64_t heads) {
  attend_to_rows<HeldBfloat16>(chunk, queries, heads);
}

VLM_CLONES void attend_to_bytes(const Chunk& chunk, const Queries& queries, std::int64_t heads) {
  attend_to_rows<HeldBytes>(chunk, queries, heads);
}

AttendToChunk attention_to(at::ScalarType held) {
  switch (held) {
    case at::kBFloat16:
      return attend_to_bfloat16;
    case at::kChar:
      return attend_to_bytes;
    default:
      return attend_to_floats;
  }
}

// What a query found in `chunks` chunks, `step` floats apart, as one.
VLM_CLONES void join_chunks(const float* found, std::int64_t step, std::int64_t chunks,
                            std::int64_t depth, float* to) {
  const auto at = [&](std::int64_t c) { return load_lanes<Found>(found + c * step); };
  float largest = kNothing, sum = 0.0F;
  for (std::int64_t c = 0; c < chunks; ++c) largest = std::max(largest, at(c).largest);
  for (std::int64_t c = 0; c < chunks; ++c) sum += at(c).sum * std::exp2(at(c).largest - largest);
  for (std::int64_t c = 0; c < chunks; ++c) {
    const float factor = std::exp2(at(c).largest - largest) / sum;
    const float* values = found + c * step + kFoundFloats;
    for (std::int64_t d = 0; d < depth; ++d) to[d] += factor * values[d];
  }
}

std::int64_t chunks_of(std::int64_t keys) {
  return divide_up(keys, kChunkKeys);
}

class CachedAttention {
 public:
  CachedAttention(const at::Tensor& q, const CachedLayer& layer,
                  const std::vector<CachedTokens>& tokens)
      : layer_(layer),
        tokens_(tokens),
        heads_(q.size(1)),
        kv_heads_(layer.tail_k.size(1)),
        depth_(q.size(3)),
        attend_to_chunk_(attention_to(layer.tail_k.scalar_type())),
        step_(depth_ + kFoundFloats),
        out_(at::zeros({q.size(0), q.size(2), heads_, depth_}, q.options())) {
    for (const CachedTokens& one : tokens) {
      first_query_.push_back(queries_);
      queries_ += one.count * heads_;
      slots_ = std::max(slots_, slots_of(one));
    }
    scale_queries(q);
  }

  at::Tensor run() {
    static thread_local std::vector<float> found;
    found.resize(static_cast<std::size_t>(queries_ * slots_ * step_));
    found_ = found.data();
    list_pieces();
    if (work_ < kSerialWork) {
      for (const Piece& piece : pieces_) attend(piece);
    } else {
      run_pieces(std::ssize(pieces_),
                 [&](std::int64_t i) { attend(pieces_[static_cast<std::size_t>(i)]); });
    }
    for (std::size_t b = 0; b < tokens_.size(); ++b) join(b);
    return out_.transpose(1, 2);
  }

 private:
  // A chunk of one head's keys, for sequences [begin, end): those of a group, or one and its tail.
  struct Piece {
    std::size_t begin, end;
    bool is_tail;
    std::int64_t kv_head, first_key, keys, slot;
  };

  static std::int64_t slots_of(const CachedTokens& one) {
    return chunks_of(one.prefix) + chunks_of(one.tail + one.count);
  }

  // q in units of log2, a query's heads side by side.
  void scale_queries(const at::Tensor& q) {
    const float scale = kLog2E / std::sqrt(static_cast<float>(depth_));
    scaled_.resize(static_cast<std::size_t>(queries_ * depth_));
    float* to = scaled_.data();
    for (std::size_t b = 0; b < tokens_.size(); ++b) {
      const float* row = q.const_data_ptr<float>() + static_cast<std::int64_t>(b) * q.stride(0);
      for (std::int64_t i = 0; i < tokens_[b].count * heads_; ++i) {
        const float* from = row + i / heads_ * q.stride(2) + i % heads_ * q.stride(1);
        for (std::int64_t d = 0; d < depth_; ++d) *to++ = from[d] * scale;
      }
    }
  }

  void list_pieces() {
    for (std::size_t begin = 0, end = 0; begin < tokens_.size(); begin = end) {
      const CachedTokens& first = tokens_[begin];
      while (end < tokens_.size() && tokens_[end].group == first.group &&
             tokens_[end].prefix == first.prefix) {
        ++end;
      }
      add_pieces({.begin = begin, .end = end, .is_tail = false, .slot = 0}, first.prefix);
      for (std::size_t b = begin; b < end; ++b) {
        add_pieces({.begin = b, .end = b + 1, .is_tail = true, .slot = chunks_of(first.prefix)},
                   tokens_[b].tail + tokens_[b].count);
      }
    }
  }

  void add_pieces(Piece piece, std::int64_t keys) {
    for (std::int64_t c = 0; c < chunks_of(keys); ++c, ++piece.slot) {
      piece.first_key = c * kChunkKeys;
      piece.keys = std::min(kChunkKeys, keys - piece.first_key);
      for (piece.kv_head = 0; piece.kv_head < kv_heads_; ++piece.kv_head) pieces_.push_back(piece);
      for (std::size_t b = piece.begin; b < piece.end; ++b) {
        work_ += 2 * piece.keys * tokens_[b].count * heads_ * depth_;
      }
    }
  }

  // Keys or values of one head from the piece's first key on.
  static const std::byte* rows_of(const at::Tensor& held, std::int64_t place, const Piece& piece) {
    const std::int64_t first =
        place * held.stride(0) + piece.kv_head * held.stride(1) + piece.first_key * held.stride(2);
    return static_cast<const std::byte*>(held.const_data_ptr()) + first * held.element_size();
  }

  void attend(const Piece& piece) {
    const std::int64_t place =
        piece.is_tail ? tokens_[piece.begin].row : tokens_[piece.begin].group;
    const at::Tensor& keys = piece.is_tail ? layer_.tail_k : layer_.prefix_k;
    const at::Tensor& values = piece.is_tail ? layer_.tail_v : layer_.prefix_v;
    Chunk chunk{.keys = rows_of(keys, place, piece),
                .values = rows_of(values, place, piece),
                .count = piece.keys,
                .depth = depth_,
                .step = keys.stride(2) * keys.element_size()};
    const std::int64_t shared = heads_ / kv_heads_;
    for (std::size_t b = piece.begin; b < piece.end; ++b) {
      for (std::int64_t t = 0; t < tokens_[b].count; ++t) {
        // A new token sees those before it and itself.
        const std::int64_t seen =
            piece.is_tail ? tokens_[b].tail + t + 1 - piece.first_key : piece.keys;
        chunk.count = std::clamp<std::int64_t>(seen, 0, piece.keys);
        for (std::int64_t h = 0; h < shared; h += kMostHeads) {
          const std::int64_t query = first_query_[b] + t * heads_ + piece.kv_head * shared + h;
          attend_to_chunk_(chunk,
                           {.q = scaled_.data() + query * depth_,
                            .found = found_ + (query * slots_ + piece.slot) * step_,
                            .step = slots_ * step_},
                           std::min<std::int64_t>(shared - h, kMostHeads));
        }
      }
    }
  }

  void join(std::size_t b) {
    float* to = out_.mutable_data_ptr<float>() + static_cast<std::int64_t>(b) * out_.stride(0);
    for (std::int64_t i = 0; i < tokens_[b].count * heads_; ++i) {
      join_chunks(found_ + (first_query_[b] + i) * slots_ * step_, step_, slots_of(tokens_[b]),
                  depth_, to + i * depth_);
    }
  }

  const CachedLayer& layer_;
  const std::vector<CachedTokens>& tokens_;
  std::int64_t heads_, kv_heads_, depth_;
  AttendToChunk attend_to_chunk_;
  std::int64_t step_;                      // floats of a query's findings in one chunk
  std::int64_t queries_ = 0, slots_ = 0;   // in all; most chunks of a query
  std::int64_t work_ = 0;                  // products
  std::vector<std::int64_t> first_query_;  // of each sequence
  std::vector<float> scaled_;              // [queries, depth]
  std::vector<Piece> pieces_;
  float* found_ = nullptr;  // [queries, slots, step]
  at::Tensor out_;          // [B, T, H, D]
};

// Rows of `depth` numbers, `step` floats and `to_step` bytes apart.
template <typename Rows>
VLM_INLINE void store_rows(const float* from, std::int64_t step, std::int64_t rows,
                           std::int64_t depth, std::byte* to, std::int64_t to_step) {
  for (std::int64_t t = 0; t < rows; ++t) Rows::store(from + t * step, depth, to + t * to_step);
}

using StoreRows = void (*)(const float*, std::int64_t, std::int64_t, std::int64_t, std::byte*,
                           std::int64_t);

VLM_CLONES void store_in_floats(const float* from, std::int64_t step, std::int64_t rows,
                                std::int64_t depth, std::byte* to, std::int64_t to_step) {
  store_rows<HeldFloats>(from, step, rows, depth, to, to_step);
}

VLM_CLONES void store_in_bfloat16(const float* from, std::int64_t step, std::int64_t rows,
                                  std::int64_t depth, std::byte* to, std::int64_t to_step) {
  store_rows<HeldBfloat16>(from, step, rows, depth, to, to_step);
}

VLM_CLONES void store_in_bytes(const float* from, std::int64_t step, std::int64_t rows,
                               std::int64_t depth, std::byte* to, std::int64_t to_step) {
  store_rows<HeldBytes>(from, step, rows, depth, to, to_step);
}

StoreRows storing_in(at::ScalarType held) {
  switch (held) {
    case at::kBFloat16:
      return store_in_bfloat16;
    case at::kChar:
      return store_in_bytes;
    default:
      return store_in_floats;
  }
}

// New keys or values behind the tails.
void store_behind(const at::Tensor& from, const std::vector<CachedTokens>& tokens,
                  const at::Tensor& tails) {
  const StoreRows store = storing_in(tails.scalar_type());
  const std::int64_t size = tails.element_size();
  auto* first = static_cast<std::byte*>(tails.mutable_data_ptr());
  for (std::size_t b = 0; b < tokens.size(); ++b) {
    const CachedTokens& one = tokens[b];
    for (std::int64_t head = 0; head < from.size(1); ++head) {
      const float* source = from.const_data_ptr<float>() +
                            static_cast<std::int64_t>(b) * from.stride(0) + head * from.stride(1);
      const std::int64_t target =
          one.row * tails.stride(0) + head * tails.stride(1) + one.tail * tails.stride(2);
      store(source, from.stride(2), one.count, from.size(3), first + target * size,
            tails.stride(2) * size);
    }
  }
}

}  // namespace

bool can_attend_to_cache(const at::TensorOptions& options, std::int64_t tokens,
                         std::int64_t head_dim) {
  return options.device().is_cpu() && c10::typeMetaToScalarType(options.dtype()) == at::kFloat &&
         tokens <= kMostTokens && head_dim % kLanes == 0;
}

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const CachedLayer& layer, const std::vector<CachedTokens>& tokens) {
  TORCH_CHECK(q.size(0) == std::ssize(tokens) && k.sizes() == v.sizes() &&
                  q.size(1) % k.size(1) == 0 && q.size(3) == k.size(3) && q.stride(3) == 1 &&
                  k.stride(3) == 1 && v.stride(3) == 1,
              "cached_attention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes());
  store_behind(k, tokens, layer.tail_k);
  store_behind(v, tokens, layer.tail_v);
  return CachedAttention(q, layer, tokens).run();
}

}  // namespace vlm

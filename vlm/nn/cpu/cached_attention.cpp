#include "vlm/nn/cpu/cached_attention.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kMostTokens = 16;  // of a sequence; more are quicker as matrix products
constexpr std::int64_t kChunkKeys = 256;
constexpr std::int64_t kSerialWork = 64 * 1024;  // products that aren't worth another thread
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Keys and values of one head, [count, depth] each.
struct Chunk {
  const float *keys, *values;
  std::int64_t count, depth;
};

// What a query found in one chunk; its weighted values follow, [depth].
struct Found {
  float largest;  // score, in units of log2
  float sum;      // of weights 2^(score - largest)
};

// One query's products with 16 keys, of which those behind `last` aren't there: it is taken again.
template <bool AreAllThere>
VLM_INLINE Floats multiply_keys(const float* keys, std::int64_t depth, std::int64_t last,
                                const float* q) {
  Floats sums[kLanes] = {};
  for (std::int64_t d = 0; d < depth; d += kLanes) {
    const Floats part = load_lanes<Floats>(q + d);
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t key = AreAllThere ? i : std::min(i, last);
      sums[i] += part * load_lanes<Floats>(keys + key * depth + d);
    }
  }
  return add_lanes(sums);
}

// Scores of one query, in units of log2 when q is scaled so; of none behind the last key.
VLM_INLINE void score_keys(const Chunk& chunk, const float* q, std::int64_t count, float* scores) {
  for (std::int64_t j = 0; j < count; j += kLanes) {
    const float* keys = chunk.keys + j * chunk.depth;
    const std::int64_t last = count - 1 - j;
    const Floats found = last < kLanes - 1 ? multiply_keys<false>(keys, chunk.depth, last, q)
                                           : multiply_keys<true>(keys, chunk.depth, last, q);
    std::memcpy(scores + j, &found, sizeof found);
  }
  std::fill(scores + count, scores + round_up(count, kLanes), kNothing);
}

// `Width` vectors of the weighted sum of values.
template <int Width>
VLM_INLINE void add_values(const float* values, std::int64_t depth, const float* weights,
                           std::int64_t count, float* to) {
  Floats sums[Width] = {};
  for (std::int64_t j = 0; j < count; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < Width; ++i) {
      sums[i] += weights[j] * load_lanes<Floats>(values + j * depth + i * kLanes);
    }
  }
  std::memcpy(to, sums, sizeof sums);
}

// One query and the first `count` keys of a chunk.
VLM_CLONES void attend_to_chunk(const Chunk& chunk, const float* q, std::int64_t count,
                                float* found) {
  alignas(64) float scores[kChunkKeys];
  score_keys(chunk, q, count, scores);
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
  const Found result{.largest = largest, .sum = add_lanes(sums)[0]};
  std::memcpy(found, &result, sizeof result);
  float* to = found + sizeof(Found) / sizeof(float);
  std::int64_t d = 0;
  for (; d + 4 * kLanes <= chunk.depth; d += 4 * kLanes) {
    add_values<4>(chunk.values + d, chunk.depth, scores, count, to + d);
  }
  for (; d < chunk.depth; d += kLanes) {
    add_values<1>(chunk.values + d, chunk.depth, scores, count, to + d);
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
    const float* values = found + c * step + sizeof(Found) / sizeof(float);
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
        step_(depth_ + static_cast<std::int64_t>(sizeof(Found) / sizeof(float))),
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
  static const float* rows_of(const at::Tensor& held, std::int64_t place, const Piece& piece) {
    return held.const_data_ptr<float>() + place * held.stride(0) + piece.kv_head * held.stride(1) +
           piece.first_key * held.stride(2);
  }

  void attend(const Piece& piece) {
    const std::int64_t place =
        piece.is_tail ? tokens_[piece.begin].row : tokens_[piece.begin].group;
    const Chunk chunk{
        .keys = rows_of(piece.is_tail ? layer_.tail_k : layer_.prefix_k, place, piece),
        .values = rows_of(piece.is_tail ? layer_.tail_v : layer_.prefix_v, place, piece),
        .count = piece.keys,
        .depth = depth_};
    const std::int64_t shared = heads_ / kv_heads_;
    for (std::size_t b = piece.begin; b < piece.end; ++b) {
      for (std::int64_t t = 0; t < tokens_[b].count; ++t) {
        // A new token sees those before it and itself.
        const std::int64_t seen =
            piece.is_tail ? tokens_[b].tail + t + 1 - piece.first_key : piece.keys;
        for (std::int64_t h = piece.kv_head * shared; h < (piece.kv_head + 1) * shared; ++h) {
          const std::int64_t query = first_query_[b] + t * heads_ + h;
          attend_to_chunk(chunk, scaled_.data() + query * depth_,
                          std::clamp<std::int64_t>(seen, 0, piece.keys),
                          found_ + (query * slots_ + piece.slot) * step_);
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
  std::int64_t step_;                      // floats of a query's findings in one chunk
  std::int64_t queries_ = 0, slots_ = 0;   // in all; most chunks of a query
  std::int64_t work_ = 0;                  // products
  std::vector<std::int64_t> first_query_;  // of each sequence
  std::vector<float> scaled_;              // [queries, depth]
  std::vector<Piece> pieces_;
  float* found_ = nullptr;  // [queries, slots, step]
  at::Tensor out_;          // [B, T, H, D]
};

// New keys or values behind the tails.
void store_behind(const at::Tensor& from, const std::vector<CachedTokens>& tokens,
                  const at::Tensor& tails) {
  const std::int64_t depth = from.size(3);
  for (std::size_t b = 0; b < tokens.size(); ++b) {
    const CachedTokens& one = tokens[b];
    for (std::int64_t head = 0; head < from.size(1); ++head) {
      const float* source = from.const_data_ptr<float>() +
                            static_cast<std::int64_t>(b) * from.stride(0) + head * from.stride(1);
      float* target = tails.mutable_data_ptr<float>() + one.row * tails.stride(0) +
                      head * tails.stride(1) + one.tail * tails.stride(2);
      for (std::int64_t t = 0; t < one.count; ++t) {
        std::copy_n(source + t * from.stride(2), depth, target + t * tails.stride(2));
      }
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

#include "vlm/nn/bfloat16_attention.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/bfloat16_linear.h"
#include "vlm/nn/clones.h"

namespace vlm {
namespace {

constexpr std::int64_t kPanel = 64;  // columns of a right-hand matrix that oneDNN takes at once
constexpr std::int64_t kBlockQueries = 64;
constexpr std::int64_t kBlockKeys = 512;  // a block of scores is 128 kB
constexpr int kScoreLanes = 16;
constexpr float kLog2E = 1.44269504F;

using Lanes = float __attribute__((vector_size(kScoreLanes * sizeof(float))));
using LaneBits = std::int32_t __attribute__((vector_size(kScoreLanes * sizeof(std::int32_t))));
using LaneHalves = std::uint16_t __attribute__((vector_size(kScoreLanes * sizeof(std::uint16_t))));

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

VLM_INLINE std::uint16_t narrow(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// One head's queries, keys or values: `rows` of `depth` floats, `stride` apart.
struct Matrix {
  const float* data;
  std::int64_t rows, depth, stride;
};

Matrix head_of(const at::Tensor& t, std::int64_t batch, std::int64_t head) {
  return {.data = t.const_data_ptr<float>() + batch * t.stride(0) + head * t.stride(1),
          .rows = t.size(2),
          .depth = t.size(3),
          .stride = t.stride(2)};
}

// Rows `begin` … of the queries, as many as a block has; zeros behind the last.
VLM_CLONES void narrow_queries(const Matrix& q, std::int64_t begin, std::uint16_t* to) {
  for (std::int64_t i = 0; i < kBlockQueries; ++i) {
    for (std::int64_t d = 0; d < q.depth; ++d) {
      to[i * q.depth + d] =
          begin + i < q.rows ? narrow(q.data[(begin + i) * q.stride + d]) : std::uint16_t{0};
    }
  }
}

// oneDNN reads a right-hand matrix in panels of 64 columns, rows in pairs: [rows / 2, 64, 2].

// kᵀ: a panel for every 64 keys.
VLM_CLONES void pack_keys(const Matrix& k, std::uint16_t* to) {
  for (std::int64_t s = 0; s < k.rows; ++s) {
    std::uint16_t* panel = to + s / kPanel * kPanel * k.depth + s % kPanel * 2;
    const float* from = k.data + s * k.stride;
    for (std::int64_t d = 0; d < k.depth; d += 2) {
      panel[d * kPanel] = narrow(from[d]);
      panel[d * kPanel + 1] = narrow(from[d + 1]);
    }
  }
}

// v: a panel of all keys for every 64 of its columns.
VLM_CLONES void pack_values(const Matrix& v, std::int64_t keys, std::uint16_t* to) {
  for (std::int64_t s = 0; s < v.rows; ++s) {
    const float* from = v.data + s * v.stride;
    for (std::int64_t d = 0; d < v.depth; ++d) {
      std::uint16_t* panel = to + d / kPanel * kPanel * keys;
      panel[(s / 2 * kPanel + d % kPanel) * 2 + s % 2] = narrow(from[d]);
    }
  }
}

VLM_INLINE Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

VLM_INLINE Lanes larger(Lanes a, Lanes b) {
  return a > b ? a : b;
}

// 2^x for x ≤ 0, within 3e-6 of it; 2^-126 below that.
VLM_INLINE Lanes exp2_of(Lanes x) {
  constexpr float kRound = 12582912.0F;  // 1.5 · 2²³: adding it leaves the integer in the low bits
  x = larger(x, Lanes{} - 126.0F);
  const Lanes shifted = x + kRound;
  const Lanes f = x - (shifted - kRound);
  const Lanes power =
      1.0F + f * (0.69314718F +
                  f * (0.24022651F + f * (0.05550411F + f * (0.00961813F + f * 0.00133336F))));
  return (Lanes)((LaneBits)power + (((LaneBits)shifted) << 23));
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
  std::uint16_t* weights;  // [queries, keys]
  float* out;              // [queries, width]
  std::int64_t keys, width, first_limit, step;
  float scale;  // to units of log2
};

VLM_CLONES void soften(const SoftmaxBlock& block, Progress& progress) {
  for (std::int64_t i = 0; i < kBlockQueries; ++i) {
    float* scores = block.scores + i * block.keys;
    const std::int64_t limit = std::max<std::int64_t>(block.first_limit + i * block.step, 0);
    for (std::int64_t j = limit; j < block.keys; ++j) {
      scores[j] = -std::numeric_limits<float>::infinity();
    }
    Lanes most = Lanes{} - std::numeric_limits<float>::infinity();
    for (std::int64_t j = 0; j < block.keys; j += kScoreLanes)
      most = larger(most, load(scores + j));
    float largest = progress.largest[i];
    for (int lane = 0; lane < kScoreLanes; ++lane) {
      largest = std::max(largest, most[lane] * block.scale);
    }
    if (largest == -std::numeric_limits<float>::infinity()) largest = 0;  // sees nothing yet
    Lanes sums = {};
    for (std::int64_t j = 0; j < block.keys; j += kScoreLanes) {
      const Lanes weights = exp2_of(load(scores + j) * block.scale - largest);
      sums += weights;
      const LaneBits bits = (LaneBits)weights;
      const LaneBits rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
      const LaneHalves halves = __builtin_convertvector(rounded, LaneHalves);
      std::memcpy(block.weights + i * block.keys + j, &halves, sizeof halves);
    }
    const float factor = std::exp2(progress.largest[i] - largest);
    float sum = progress.sums[i] * factor;
    for (int lane = 0; lane < kScoreLanes; ++lane) sum += sums[lane];
    progress.largest[i] = largest;
    progress.sums[i] = sum;
    float* out = block.out + i * block.width;
    for (std::int64_t d = 0; d < block.width; ++d) out[d] *= factor;
  }
}

const at::BFloat16* as_bfloat16(const std::uint16_t* words) {
  return reinterpret_cast<const at::BFloat16*>(words);
}

// Buffers of one thread.
struct Scratch {
  std::vector<std::uint16_t> queries, weights;
  std::vector<float> scores, out;
};

// Keys and values of one head, packed.
struct PackedHead {
  const at::BFloat16* keys;
  const at::BFloat16* values;
};

class BlockAttention {
 public:
  BlockAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool is_causal)
      : q_(q),
        k_(k),
        v_(v),
        is_causal_(is_causal),
        depth_(q.size(3)),
        keys_(round_up(k.size(2), kPanel)),
        width_(round_up(depth_, kPanel)),
        packed_keys_(at::zeros({k.size(0) * k.size(1), keys_ * depth_}, at::kBFloat16)),
        packed_values_(at::zeros({k.size(0) * k.size(1), keys_ * width_}, at::kBFloat16)) {}

  at::Tensor run() {
    const std::int64_t kv_heads = k_.size(1), heads = q_.size(1);
    run_pieces(packed_keys_.size(0), [&](std::int64_t i) {
      pack_keys(head_of(k_, i / kv_heads, i % kv_heads), words_of(packed_keys_, i));
      pack_values(head_of(v_, i / kv_heads, i % kv_heads), keys_, words_of(packed_values_, i));
    });
    at::Tensor out = at::empty({q_.size(0), q_.size(2), heads, depth_}, q_.options());
    const std::int64_t blocks = round_up(q_.size(2), kBlockQueries) / kBlockQueries;
    run_pieces(q_.size(0) * heads * blocks, [&](std::int64_t i) {
      // Later blocks see more keys: they come first, so that threads end together.
      const std::int64_t block = blocks - 1 - i / (q_.size(0) * heads);
      const std::int64_t row = i % (q_.size(0) * heads);
      attend(row / heads, row % heads, block * kBlockQueries, out);
    });
    return out.transpose(1, 2);
  }

 private:
  static std::uint16_t* words_of(const at::Tensor& packed, std::int64_t row) {
    return static_cast<std::uint16_t*>(packed.data_ptr()) + row * packed.size(1);
  }

  // One block of one head's queries.
  void attend(std::int64_t batch, std::int64_t head, std::int64_t begin, at::Tensor& out) const {
    thread_local Scratch scratch;
    scratch.queries.resize(static_cast<std::size_t>(kBlockQueries * depth_));
    scratch.weights.resize(kBlockQueries * kBlockKeys);
    scratch.scores.resize(kBlockQueries * kBlockKeys);
    scratch.out.assign(static_cast<std::size_t>(kBlockQueries * width_), 0.0F);
    const Matrix queries = head_of(q_, batch, head);
    narrow_queries(queries, begin, scratch.queries.data());
    Progress progress;
    std::fill_n(progress.largest, kBlockQueries, -std::numeric_limits<float>::infinity());
    std::fill_n(progress.sums, kBlockQueries, 0.0F);
    const std::int64_t kv_row = batch * k_.size(1) + head / (q_.size(1) / k_.size(1));
    const PackedHead kv{as_bfloat16(words_of(packed_keys_, kv_row)),
                        as_bfloat16(words_of(packed_values_, kv_row))};
    const std::int64_t all = k_.size(2);
    const std::int64_t first = is_causal_ ? all - queries.rows + begin + 1 : all;  // first query's
    const std::int64_t last = is_causal_ ? std::min(first + kBlockQueries - 1, all) : all;
    for (std::int64_t key = 0; key < last; key += kBlockKeys) {
      add_keys(kv, key, std::min(kBlockKeys, round_up(last - key, kPanel)), first - key, scratch,
               progress);
    }
    at::native::cpublas::brgemm_release();
    float* to = out.mutable_data_ptr<float>() + batch * out.stride(0) + head * out.stride(2);
    const std::int64_t rows = std::min(kBlockQueries, queries.rows - begin);
    for (std::int64_t i = 0; i < rows; ++i) {
      const float factor = 1.0F / progress.sums[i];
      for (std::int64_t d = 0; d < depth_; ++d) {
        to[(begin + i) * out.stride(1) + d] =
            scratch.out[static_cast<std::size_t>(i * width_ + d)] * factor;
      }
    }
  }

  // Keys `begin` … of `count`; the first query sees those below begin + first_limit.
  void add_keys(const PackedHead& kv, std::int64_t begin, std::int64_t count,
                std::int64_t first_limit, Scratch& scratch, Progress& progress) const {
    using at::native::cpublas::brgemm;
    for (std::int64_t j = 0; j < count; j += kPanel) {
      brgemm(kBlockQueries, kPanel, depth_, depth_, kPanel, count, /*add_C=*/false,
             as_bfloat16(scratch.queries.data()), kv.keys + (begin + j) * depth_,
             scratch.scores.data() + j);
    }
    // Query i of a causal block sees one key more than the one before it; nobody sees padding.
    soften({.scores = scratch.scores.data(),
            .weights = scratch.weights.data(),
            .out = scratch.out.data(),
            .keys = count,
            .width = width_,
            .first_limit = first_limit,
            .step = is_causal_ ? 1 : 0,
            .scale = kLog2E / std::sqrt(static_cast<float>(depth_))},
           progress);
    for (std::int64_t d = 0; d < width_; d += kPanel) {
      brgemm(kBlockQueries, kPanel, count, count, kPanel, width_, /*add_C=*/true,
             as_bfloat16(scratch.weights.data()), kv.values + d * keys_ + begin * kPanel,
             scratch.out.data() + d);
    }
  }

  const at::Tensor &q_, &k_, &v_;
  bool is_causal_;
  std::int64_t depth_;                      // of a head
  std::int64_t keys_;                       // padded to whole panels
  std::int64_t width_;                      // depth padded to whole panels
  at::Tensor packed_keys_, packed_values_;  // [B·K, …]
};

// Whether oneDNN is there and reads panels as they are packed here: tries a product of small
// integers, which bfloat16 holds exactly.
bool is_product_right() {
  constexpr std::int64_t kDepth = 4;
  std::vector<std::uint16_t> left(kPanel * kDepth), right(kPanel * kDepth);
  std::vector<float> values(kPanel * kDepth), found(kPanel * kPanel);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 13) - 6;
  for (std::size_t i = 0; i < values.size(); ++i) left[i] = narrow(values[i]);
  const Matrix keys{.data = values.data(), .rows = kPanel, .depth = kDepth, .stride = kDepth};
  pack_keys(keys, right.data());
  try {
    at::native::cpublas::brgemm(kPanel, kPanel, kDepth, kDepth, kPanel, kPanel, /*add_C=*/false,
                                as_bfloat16(left.data()), as_bfloat16(right.data()), found.data());
    at::native::cpublas::brgemm_release();
  } catch (const c10::Error&) {
    return false;
  }
  for (std::size_t i = 0; i < kPanel; ++i) {
    for (std::size_t j = 0; j < kPanel; ++j) {
      float sum = 0;
      for (std::size_t d = 0; d < kDepth; ++d) {
        sum += values[i * kDepth + d] * values[j * kDepth + d];
      }
      if (found[i * kPanel + j] != sum) return false;
    }
  }
  return true;
}

}  // namespace

bool can_attend_in_bfloat16(const at::Tensor& q) {
  static const bool is_usable = has_bfloat16_products() && is_product_right();
  return is_usable && q.is_cpu() && q.scalar_type() == at::kFloat && q.size(3) % 2 == 0;
}

at::Tensor bfloat16_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              bool is_causal) {
  TORCH_CHECK(q.size(1) % k.size(1) == 0 && k.sizes() == v.sizes() && q.size(3) == k.size(3) &&
                  (!is_causal || q.size(2) <= k.size(2)),
              "bfloat16_attention: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes());
  const auto rows = [](const at::Tensor& t) { return t.stride(3) == 1 ? t : t.contiguous(); };
  const at::Tensor own_q = rows(q), own_k = rows(k), own_v = rows(v);
  return BlockAttention(own_q, own_k, own_v, is_causal).run();
}

}  // namespace vlm

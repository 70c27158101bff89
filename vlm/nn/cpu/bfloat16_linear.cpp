#include "vlm/nn/cpu/bfloat16_linear.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/ivalue.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/_unsafe_view.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/bfloat16_panels.h"
#include "vlm/nn/cpu/bfloat16_product.h"
#include "vlm/nn/cpu/lanes.h"
#include "vlm/nn/cpu/onednn_linear.h"

namespace vlm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr std::int64_t kDirectRows = 64;         // of x; more of them go through a product,
constexpr std::int64_t kExactRows = 16;          // and these in bfloat16
constexpr std::int64_t kBlockBytes = 4 << 20;    // of converted weights
constexpr std::int64_t kLeastPiece = 16 * 1024;  // weights that a thread takes at a time,
constexpr std::int64_t kMostPiece = 128 * 1024;  // an eighth of its share if that is between

// Weights come from memory into the second cache while those before them are multiplied. The first
// one waits for too few lines at a time.
constexpr std::int64_t kRowsAhead = 8;

constexpr std::int64_t kStep = 2 * kLanes;  // weights in a vector of words

VLM_INLINE float widen(std::uint16_t half) {
  const std::uint32_t word = static_cast<std::uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

struct Product {
  const float* x;          // [rows, k], split: see split_evens
  const std::uint16_t* w;  // [n, k]
  const float* bias;       // [n], or null
  float* y;                // [rows, n]
  std::int64_t rows, k, n;
};

// The sums of M rows of x with N rows of w. A vector of words holds 32 weights: those of even index
// in the words' low halves, those of odd index in the high ones. Shift or mask, and each is a
// float32.
template <int M, int N>
VLM_INLINE void multiply_tile(const Product& p, std::int64_t m, std::int64_t n) {
  Floats sums[M * N] = {};
  const std::int64_t whole = p.k / kStep * kStep;
  const float* x = p.x + m * p.k;
  const std::uint16_t* w = p.w + n * p.k;
  for (std::int64_t k = 0; k < whole; k += kStep) {
    Floats even[N], odd[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      Words words;
      std::memcpy(&words, w + j * p.k + k, sizeof words);
      __builtin_prefetch(w + (j + kRowsAhead) * p.k + k, 0, kSecondCache);
      even[j] = (Floats)(words << 16);
      odd[j] = (Floats)(words & 0xFFFF0000U);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      Floats evens, odds;
      std::memcpy(&evens, x + i * p.k + k, sizeof evens);
      std::memcpy(&odds, x + i * p.k + k + kLanes, sizeof odds);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) {
        sums[i * N + j] += evens * even[j];
        sums[i * N + j] += odds * odd[j];
      }
    }
  }
  const Floats totals = add_lanes(sums);
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      float sum = p.bias ? p.bias[n + j] : 0.0F;
      for (std::int64_t k = whole; k < p.k; ++k) sum += x[i * p.k + k] * widen(w[j * p.k + k]);
      p.y[(m + i) * p.n + n + j] = sum + totals[(i * N + j) * kLanes / (M * N)];
    }
  }
}

template <int N>
VLM_INLINE void multiply_rows(const Product& p, std::int64_t n) {
  std::int64_t m = 0;
  for (; m + 4 <= p.rows; m += 4) multiply_tile<4, N>(p, m, n);
  for (; m + 2 <= p.rows; m += 2) multiply_tile<2, N>(p, m, n);
  for (; m < p.rows; ++m) multiply_tile<1, N>(p, m, n);
}

// Columns `begin` … `end` of y, for all rows of x.
VLM_CLONES void multiply_columns(const Product& p, std::int64_t begin, std::int64_t end) {
  const std::uint16_t* first = p.w + begin * p.k;
  for (std::int64_t i = 0; i < kRowsAhead * p.k; i += kStep) {
    __builtin_prefetch(first + i, 0, kSecondCache);
  }
  std::int64_t n = begin;
  for (; n + 4 <= end; n += 4) multiply_rows<4>(p, n);
  for (; n < end; ++n) multiply_rows<1>(p, n);
}

VLM_CLONES void widen_all(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}

// Rows of W that a thread takes at a time, of matrices with `weights` weights in all.
std::int64_t piece_rows(std::int64_t weights, std::int64_t k) {
  const std::int64_t piece =
      std::clamp(weights / (8 * at::get_num_threads()), kLeastPiece, kMostPiece);
  return std::max<std::int64_t>(piece / k / 4 * 4, 4);
}

// x [rows, k] with each run of 32 values of a row reordered, those of even index first, as
// multiply_tile takes them.
VLM_CLONES void split_evens(const float* x, std::int64_t rows, std::int64_t k, float* to) {
  const std::int64_t whole = k / kStep * kStep;
  for (std::int64_t i = 0; i < rows; ++i, x += k, to += k) {
    for (std::int64_t begin = 0; begin < whole; begin += kStep) {
      const auto [evens, odds] =
          split_pairs(load_lanes<Floats>(x + begin), load_lanes<Floats>(x + begin + kLanes));
      std::memcpy(to + begin, &evens, sizeof evens);
      std::memcpy(to + begin + kLanes, &odds, sizeof odds);
    }
    for (std::int64_t j = whole; j < k; ++j) to[j] = x[j];
  }
}

Tensors multiply_directly(const at::Tensor& x, const std::vector<WeightAndBias>& maps) {
  const std::int64_t rows = x.size(0), k = x.size(1);
  thread_local std::vector<float> split;
  split.resize(static_cast<std::size_t>(x.numel()));
  split_evens(x.const_data_ptr<float>(), rows, k, split.data());
  std::int64_t weights = 0;
  for (const WeightAndBias& map : maps) weights += map.weight.numel();
  const std::int64_t step = piece_rows(weights, k);

  struct Piece {
    std::size_t product;
    std::int64_t begin, end;  // rows of W
  };
  Tensors results;
  std::vector<Product> products;
  std::vector<Piece> pieces;
  for (const auto& [weight, bias] : maps) {
    const std::int64_t n = weight.size(0);
    results.push_back(at::empty({rows, n}, x.options()));
    for (std::int64_t begin = 0; begin < n; begin += step) {
      pieces.push_back({products.size(), begin, std::min(begin + step, n)});
    }
    products.push_back({.x = split.data(),
                        .w = words_of(weight),
                        .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                        .y = results.back().mutable_data_ptr<float>(),
                        .rows = rows,
                        .k = k,
                        .n = n});
  }
  run_pieces(std::ssize(pieces), [&](std::int64_t i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    multiply_columns(products[piece.product], piece.begin, piece.end);
  });
  return results;
}

// A buffer for converted weights that lives as long as the calling thread: asking the system for
// megabytes of fresh pages in every call costs as much as the conversion.
at::Tensor scratch(std::int64_t rows, std::int64_t k) {
  thread_local at::Tensor buffer;
  if (!buffer.defined() || buffer.numel() < rows * k) buffer = at::empty({rows * k}, at::kFloat);
  return buffer.narrow(0, 0, rows * k).view({rows, k});
}

// Calls work(block [count, K] float32, first row, count) for blocks that cover the weight.
template <typename Work>
void over_blocks(const at::Tensor& weight, const Work& work) {
  const std::int64_t k = weight.size(1), total = weight.size(0);
  const std::int64_t step = std::clamp<std::int64_t>(kBlockBytes / 4 / k, 1, total);
  for (std::int64_t n = 0; n < total; n += step) {
    const std::int64_t count = std::min(step, total - n);
    const at::Tensor block = scratch(count, k);
    const std::int64_t rows = piece_rows(count * k, k);
    run_pieces((count + rows - 1) / rows, [&](std::int64_t i) {
      const std::int64_t begin = i * rows, end = std::min(begin + rows, count);
      widen_all(words_of(weight) + (n + begin) * k, block.mutable_data_ptr<float>() + begin * k,
                (end - begin) * k);
    });
    work(block, n, count);
  }
}

at::Tensor multiply_in_blocks(const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& bias) {
  const bool is_onednn = prefers_onednn(x, x.size(0));
  at::Tensor y;
  over_blocks(weight, [&](const at::Tensor& block, std::int64_t n, std::int64_t count) {
    const at::Tensor added = bias.defined() ? bias.narrow(0, n, count) : bias;
    const at::Tensor product = is_onednn ? onednn_linear(x, block, added) : at::Tensor();
    if (is_onednn && count == weight.size(0)) {
      y = product;
      return;
    }
    if (!y.defined()) y = at::empty({x.size(0), weight.size(0)}, x.options());
    at::Tensor columns = y.narrow(1, n, count);
    if (is_onednn) {
      columns.copy_(product);
    } else if (added.defined()) {
      at::addmm_out(columns, added, x, block.t());
    } else {
      at::mm_out(columns, x, block.t());
    }
  });
  return y;
}

at::Tensor multiply_rounded(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor y = at::linear(x.to(at::kBFloat16), weight).to(at::kFloat);
  return bias.defined() ? y.add_(bias) : y;
}

Tensors multiply(const at::Tensor& x, const std::vector<WeightAndBias>& maps,
                 at::ScalarType product_dtype) {
  const bool is_rounded = product_dtype == at::kBFloat16;
  if (x.size(0) <= (is_rounded ? kExactRows : kDirectRows)) return multiply_directly(x, maps);
  if (is_rounded && can_multiply_in_panels(x)) return panel_linears(x, maps);
  Tensors results;
  for (const auto& [weight, bias] : maps) {
    results.push_back(is_rounded ? multiply_rounded(x, weight, bias)
                                 : multiply_in_blocks(x, weight, bias));
  }
  return results;
}

}  // namespace

bool has_bfloat16_products() {
  static const bool is_found = [] {
    const auto capabilities = at::cpu::get_cpu_capabilities();
    const auto has = [&](const char* name) {
      const auto found = capabilities.find(name);
      return found != capabilities.end() && found->second.isBool() && found->second.toBool();
    };
    return (has("avx512_bf16") || has("amx_bf16")) && at::globalContext().userEnabledMkldnn();
  }();
  return is_found;
}

std::vector<at::Tensor> bfloat16_linears(const at::Tensor& x,
                                         const std::vector<WeightAndBias>& maps,
                                         at::ScalarType product_dtype) {
  std::vector<WeightAndBias> own = maps;
  for (WeightAndBias& map : own) {
    TORCH_CHECK(x.is_cpu() && map.weight.is_cpu() && x.scalar_type() == at::kFloat &&
                    map.weight.scalar_type() == at::kBFloat16 && x.size(-1) == map.weight.size(1),
                "bfloat16_linear: x ", x.sizes(), " ", x.scalar_type(), ", weight ",
                map.weight.sizes(), " ", map.weight.scalar_type());
    map.weight = map.weight.contiguous();
  }
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
  Tensors results = multiply(rows, own, product_dtype);
  std::vector<std::int64_t> shape = x.sizes().vec();
  for (at::Tensor& y : results) {
    shape.back() = y.size(1);
    y = at::_unsafe_view(y, shape);  // no view in autograd's eyes: it may be added to in place
  }
  return results;
}

at::Tensor bfloat16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           at::ScalarType product_dtype) {
  return bfloat16_linears(x, {{weight, bias}}, product_dtype)[0];
}

at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight,
                          at::ScalarType product_dtype) {
  const at::Tensor rows = dy.reshape({-1, dy.size(-1)}).contiguous();
  at::Tensor dx;
  if (product_dtype == at::kBFloat16 && can_multiply_in_panels(rows)) {
    dx = panel_times(rows, weight);
  } else if (product_dtype == at::kBFloat16) {
    dx = at::mm(rows.to(at::kBFloat16), weight).to(at::kFloat);
  } else {
    dx = at::zeros({rows.size(0), weight.size(1)}, dy.options());
    over_blocks(weight.contiguous(),
                [&](const at::Tensor& block, std::int64_t n, std::int64_t count) {
                  dx.addmm_(rows.narrow(1, n, count), block);
                });
  }
  std::vector<std::int64_t> shape = dy.sizes().vec();
  shape.back() = weight.size(1);
  return dx.view(shape);
}

}  // namespace vlm

#include "vlm/nn/cpu/bfloat16_linear.h"

#include <ATen/Context.h>
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

constexpr std::int64_t kDirectRows = 64;           // of x; more of them go through a product,
constexpr std::int64_t kExactRows = 16;            // and these in bfloat16
constexpr std::int64_t kBlockBytes = 4 << 20;      // of converted weights
constexpr std::int64_t kPieceWeights = 32 * 1024;  // that a thread takes at a time

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
  Floats sums[M][N] = {};
  const std::int64_t whole = p.k / kStep * kStep;
  const float* x = p.x + m * p.k;
  const std::uint16_t* w = p.w + n * p.k;
  for (std::int64_t k = 0; k < whole; k += kStep) {
    Floats even[N], odd[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      Words words;
      std::memcpy(&words, w + j * p.k + k, sizeof words);
      // The next rows come to the cache while these are multiplied.
      if (M == 4) __builtin_prefetch(w + (j + N) * p.k + k);
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
        sums[i][j] += evens * even[j];
        sums[i][j] += odds * odd[j];
      }
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      float sum = p.bias ? p.bias[n + j] : 0.0F;
      for (std::int64_t k = whole; k < p.k; ++k) sum += x[i * p.k + k] * widen(w[j * p.k + k]);
      for (int lane = 0; lane < kLanes; ++lane) sum += sums[i][j][lane];
      p.y[(m + i) * p.n + n + j] = sum;
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
  std::int64_t n = begin;
  for (; n + 4 <= end; n += 4) multiply_rows<4>(p, n);
  for (; n < end; ++n) multiply_rows<1>(p, n);
}

VLM_CLONES void widen_all(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}

// Calls work(begin, end) for ranges of whole rows of W that cover begin … end.
template <typename Work>
void over_rows(std::int64_t rows, std::int64_t k, const Work& work) {
  const std::int64_t step = std::max<std::int64_t>(kPieceWeights / k / 4 * 4, 4);
  run_pieces((rows + step - 1) / step,
             [&](std::int64_t i) { work(i * step, std::min((i + 1) * step, rows)); });
}

// x [rows, k] with each run of 32 values of a row reordered, those of even index first, as
// multiply_tile takes them.
VLM_CLONES void split_evens(const float* x, std::int64_t rows, std::int64_t k, float* to) {
  const std::int64_t whole = k / kStep * kStep;
  for (std::int64_t i = 0; i < rows; ++i, x += k, to += k) {
    for (std::int64_t begin = 0; begin < whole; begin += kStep) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        to[begin + lane] = x[begin + 2 * lane];
        to[begin + kLanes + lane] = x[begin + 2 * lane + 1];
      }
    }
    for (std::int64_t j = whole; j < k; ++j) to[j] = x[j];
  }
}

at::Tensor multiply_directly(const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& bias) {
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  thread_local std::vector<float> split;
  split.resize(static_cast<std::size_t>(x.numel()));
  split_evens(x.const_data_ptr<float>(), x.size(0), x.size(1), split.data());
  const Product product{.x = split.data(),
                        .w = words_of(weight),
                        .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                        .y = y.mutable_data_ptr<float>(),
                        .rows = x.size(0),
                        .k = x.size(1),
                        .n = weight.size(0)};
  over_rows(product.n, product.k,
            [&](std::int64_t begin, std::int64_t end) { multiply_columns(product, begin, end); });
  return y;
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
    over_rows(count, k, [&](std::int64_t begin, std::int64_t end) {
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
  if (can_multiply_in_panels(x, weight)) return panel_linear(x, weight, bias);
  at::Tensor y = at::linear(x.to(at::kBFloat16), weight).to(at::kFloat);
  return bias.defined() ? y.add_(bias) : y;
}

at::Tensor multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    at::ScalarType product_dtype) {
  const bool is_rounded = product_dtype == at::kBFloat16;
  if (x.size(0) <= (is_rounded ? kExactRows : kDirectRows)) {
    return multiply_directly(x, weight, bias);
  }
  if (is_rounded) return multiply_rounded(x, weight, bias);
  return multiply_in_blocks(x, weight, bias);
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

at::Tensor bfloat16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           at::ScalarType product_dtype) {
  TORCH_CHECK(x.is_cpu() && weight.is_cpu() && x.scalar_type() == at::kFloat &&
                  weight.scalar_type() == at::kBFloat16 && x.size(-1) == weight.size(1),
              "bfloat16_linear: x ", x.sizes(), " ", x.scalar_type(), ", weight ", weight.sizes(),
              " ", weight.scalar_type());
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
  const at::Tensor y = multiply(rows, weight.contiguous(), bias, product_dtype);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return at::_unsafe_view(y, shape);  // no view in autograd's eyes: it may be added to in place
}

at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight,
                          at::ScalarType product_dtype) {
  const at::Tensor rows = dy.reshape({-1, dy.size(-1)}).contiguous();
  at::Tensor dx;
  if (product_dtype == at::kBFloat16 && can_multiply_in_panels(rows, weight)) {
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

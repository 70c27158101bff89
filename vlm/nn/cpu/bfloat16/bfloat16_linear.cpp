#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"

#include <ATen/Context.h>
#include <ATen/core/ivalue.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vlm/nn/cpu/bfloat16/bfloat16_panels.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_product.h"
#include "vlm/nn/cpu/few_rows.h"
#include "vlm/nn/cpu/lanes.h"
#include "vlm/nn/cpu/matrix_rows.h"
#include "vlm/nn/cpu/widened_blocks.h"

namespace vlm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr std::int64_t kDirectRows = 64;  // of x; more of them go through a product,
constexpr std::int64_t kExactRows = 16;   // and these in bfloat16

// A vector of words holds 32 weights: those of even index in the words' low halves, those of odd
// index in the high ones. Shift or mask, and each is a float32.
struct Bfloat16Values {
  using Value = std::uint16_t;
  static constexpr int kVectors = 2;

  VLM_INLINE static void load(const Value* from, Floats (&weights)[kVectors]) {
    const Words words = load_lanes<Words>(from);
    weights[0] = (Floats)(words << 16);
    weights[1] = (Floats)(words & 0xFFFF0000U);
  }

  VLM_INLINE static float widen(Value half) {
    const std::uint32_t word = static_cast<std::uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

using Product = FewRows<Bfloat16Values>;

VLM_CLONES void multiply_columns(const Product& p, std::int64_t begin, std::int64_t end) {
  multiply_few_rows(p, begin, end);
}

VLM_CLONES void widen_all(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = Bfloat16Values::widen(from[i]);
}

NarrowMatrix narrow_matrix(const at::Tensor& weight) {
  const std::int64_t k = weight.size(1);
  return {
      .n = weight.size(0),
      .k = k,
      .widen = [words = words_of(weight), k](std::int64_t first, std::int64_t count, float* to) {
        widen_all(words + first * k, to, count * k);
      }};
}

// x [rows, k] with each run of 32 values of a row reordered, those of even index first, as the
// weights come.
VLM_CLONES void split_evens(const float* x, std::int64_t rows, std::int64_t k, float* to) {
  constexpr std::int64_t kStep = step_of<Bfloat16Values>;
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
  Tensors results;
  std::vector<Product> products;
  for (const auto& [weight, bias] : maps) {
    results.push_back(at::empty({rows, weight.size(0)}, x.options()));
    products.push_back({.x = split.data(),
                        .w = words_of(weight),
                        .scales = nullptr,
                        .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                        .y = results.back().mutable_data_ptr<float>(),
                        .rows = rows,
                        .k = k,
                        .n = weight.size(0)});
  }
  run_columns(products, multiply_columns);
  return results;
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
                                 : multiply_widened(x, narrow_matrix(weight), bias));
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
  const at::Tensor rows = as_rows(x);
  Tensors results = multiply(rows, own, product_dtype);
  for (at::Tensor& y : results) y = shaped_like(x, y);
  return results;
}

at::Tensor bfloat16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           at::ScalarType product_dtype) {
  return bfloat16_linears(x, {{weight, bias}}, product_dtype)[0];
}

at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight,
                          at::ScalarType product_dtype) {
  const at::Tensor rows = as_rows(dy);
  at::Tensor dx;
  if (product_dtype == at::kBFloat16 && can_multiply_in_panels(rows)) {
    dx = panel_times(rows, weight);
  } else if (product_dtype == at::kBFloat16) {
    dx = at::mm(rows.to(at::kBFloat16), weight).to(at::kFloat);
  } else {
    dx = at::zeros({rows.size(0), weight.size(1)}, dy.options());
    const at::Tensor own = weight.contiguous();
    over_widened_blocks(narrow_matrix(own),
                        [&](const at::Tensor& block, std::int64_t n, std::int64_t count) {
                          dx.addmm_(rows.narrow(1, n, count), block);
                        });
  }
  return shaped_like(dy, dx);
}

}  // namespace vlm

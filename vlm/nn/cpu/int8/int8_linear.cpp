#include "vlm/nn/cpu/int8/int8_linear.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "vlm/nn/cpu/few_rows.h"
#include "vlm/nn/cpu/int8/int8_few_rows.h"
#include "vlm/nn/cpu/matrix_rows.h"
#include "vlm/nn/cpu/widened_blocks.h"

namespace vlm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr std::int64_t kFewRows = 16;   // of x; more of them fill panels
constexpr std::int64_t kWideRows = 64;  // where x stays float32; more go through LibTorch

// `rows` says what x is; with each of the maps it becomes a product.
template <typename Rows>
Tensors multiply_each(const Rows& rows, const std::vector<Int8Map>& maps,
                      void (*columns)(const Rows&, std::int64_t, std::int64_t)) {
  Tensors results;
  std::vector<Rows> products;
  for (const Int8Map& map : maps) {
    Rows& product = products.emplace_back(rows);
    product.n = map.weight->out_features();
    product.w = map.weight->codes.const_data_ptr<std::uint8_t>();
    product.scales = map.weight->scales.const_data_ptr<float>();
    product.bias = map.bias.defined() ? map.bias.const_data_ptr<float>() : nullptr;
    product.y = results.emplace_back(at::empty({rows.rows, product.n}, at::kFloat))
                    .template mutable_data_ptr<float>();
  }
  run_columns(products, columns);
  return results;
}

// ---- x in 8 bits ----

VLM_CLONES void quantize_few(const float* x, std::int64_t rows, std::int64_t depth,
                             std::int64_t padded, std::int8_t* codes, float* scales,
                             std::int32_t* offsets) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const QuantizedRow row = quantize_row(x + i * depth, depth, padded, codes + i * padded);
    scales[i] = row.scale;
    offsets[i] = 128 * row.sum;
  }
}

Tensors multiply_few(const at::Tensor& x, const std::vector<Int8Map>& maps) {
  thread_local std::vector<std::int8_t> codes;
  const std::int64_t rows = x.size(0), padded = round_up(x.size(1), kCodesStep);
  codes.resize(static_cast<std::size_t>(rows * padded));
  float x_scales[kFewRows];
  std::int32_t offsets[kFewRows];
  quantize_few(x.const_data_ptr<float>(), rows, x.size(1), padded, codes.data(), x_scales, offsets);
  return multiply_each(
      Int8Rows{
          .x = codes.data(), .x_scales = x_scales, .offsets = offsets, .rows = rows, .k = padded},
      maps, multiply_codes);
}

// ---- x in float32 ----

// A vector of words holds 64 codes: every fourth one from the same byte of each word.
struct Int8Values {
  using Value = std::uint8_t;
  static constexpr int kVectors = 4;

  VLM_INLINE static void load(const Value* from, Floats (&weights)[kVectors]) {
    const Words words = load_lanes<Words>(from);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      const Ints codes = (Ints)((words >> (8 * i)) & 0xFFU);
      weights[i] = __builtin_convertvector(codes - 128, Floats);
    }
  }
  VLM_INLINE static float widen(Value code) {
    return static_cast<float>(code) - 128.0F;
  }
};

// x [rows, depth] in the order in which the weights come, zeros behind `depth`.
VLM_CLONES void split_fours(const float* x, std::int64_t rows, std::int64_t depth,
                            std::int64_t padded, float* to) {
  for (std::int64_t i = 0; i < rows; ++i, x += depth, to += padded) {
    for (std::int64_t k = 0; k < padded; ++k) {
      const std::int64_t place = k / kCodesStep * kCodesStep + k % 4 * kLanes + k % kCodesStep / 4;
      to[place] = k < depth ? x[k] : 0.0F;
    }
  }
}

using WideRows = FewRows<Int8Values>;

VLM_CLONES void multiply_wide_columns(const WideRows& p, std::int64_t begin, std::int64_t end) {
  multiply_few_rows(p, begin, end);
}

VLM_CLONES void widen_row(const std::uint8_t* codes, std::int64_t count, float scale, float* to) {
  for (std::int64_t k = 0; k < count; ++k) to[k] = Int8Values::widen(codes[k]) * scale;
}

NarrowMatrix narrow_codes(const Int8Weight& weight) {
  return {.n = weight.out_features(),
          .k = weight.in_features,
          .widen = [&weight](std::int64_t first, std::int64_t count, float* to) {
            const std::int64_t padded = weight.codes.size(1);
            for (std::int64_t n = first; n < first + count; ++n, to += weight.in_features) {
              widen_row(weight.codes.const_data_ptr<std::uint8_t>() + n * padded,
                        weight.in_features, weight.scales.const_data_ptr<float>()[n], to);
            }
          }};
}

Tensors multiply_wide(const at::Tensor& x, const std::vector<Int8Map>& maps) {
  Tensors results;
  if (x.size(0) > kWideRows) {
    for (const Int8Map& map : maps) {
      results.push_back(multiply_widened(x, narrow_codes(*map.weight), map.bias));
    }
    return results;
  }
  const std::int64_t rows = x.size(0), k = x.size(1), padded = round_up(k, kCodesStep);
  thread_local std::vector<float> own;
  own.resize(static_cast<std::size_t>(rows * padded));
  split_fours(x.const_data_ptr<float>(), rows, k, padded, own.data());
  return multiply_each(WideRows{.x = own.data(), .rows = rows, .k = padded}, maps,
                       multiply_wide_columns);
}

}  // namespace

bool fills_int8_panels(const at::Tensor& rows) {
  return rows.size(0) > kFewRows && has_int8_products();
}

Tensors int8_linears(const at::Tensor& x, const std::vector<Int8Map>& maps, bool with_products) {
  for (const Int8Map& map : maps) {
    TORCH_CHECK(
        x.is_cpu() && x.scalar_type() == at::kFloat && x.size(-1) == map.weight->in_features,
        "int8_linear: x ", x.sizes(), " ", x.scalar_type(), ", weight ", map.weight->codes.sizes());
  }
  const at::Tensor rows = as_rows(x);
  Tensors results = !with_products             ? multiply_wide(rows, maps)
                    : rows.size(0) <= kFewRows ? multiply_few(rows, maps)
                                               : int8_panel_linears(rows, maps);
  for (at::Tensor& y : results) y = shaped_like(x, y);
  return results;
}

}  // namespace vlm

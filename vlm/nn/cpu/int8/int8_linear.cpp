#include "vlm/nn/cpu/int8/int8_linear.h"

#include <ATen/ops/_unsafe_view.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "vlm/nn/activations.h"
#include "vlm/nn/cpu/few_rows.h"
#include "vlm/nn/cpu/widened_blocks.h"

namespace vlm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr std::int64_t kFewRows = 16;   // of x; more of them fill panels
constexpr std::int64_t kWideRows = 64;  // where x stays float32; more go through LibTorch

const float* bias_of(const Int8Map& map) {
  return map.bias.defined() ? map.bias.const_data_ptr<float>() : nullptr;
}

// ---- x in 8 bits ----

// A few rows of x in 8 bits with weights in 8 bits.
struct Int8Rows {
  const std::int8_t* x;         // [rows, k]
  const float* x_scales;        // [rows]
  const std::int32_t* offsets;  // [rows]: what the weights' 128 adds to the sums
  const std::uint8_t* w;        // [n, k]
  const float* scales;          // [n]
  const float* bias;            // [n], or null
  float* y;                     // [rows, n]
  std::int64_t rows, k, n;      // k is a multiple of 64
};

VLM_CLONES void quantize_few(const float* x, std::int64_t rows, std::int64_t depth,
                             std::int64_t padded, std::int8_t* codes, float* scales,
                             std::int32_t* offsets) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const QuantizedRow row = quantize_row(x + i * depth, depth, padded, codes + i * padded);
    scales[i] = row.scale;
    offsets[i] = 128 * row.sum;
  }
}

#if defined(__x86_64__)
#define VLM_VNNI __attribute__((target("arch=x86-64-v4,avx512vnni")))

// The sums of M rows of x with N rows of w.
template <int M, int N>
VLM_VNNI VLM_INLINE void multiply_codes(const Int8Rows& p, std::int64_t m, std::int64_t n) {
  Ints sums[M * N] = {};
  const std::int8_t* x = p.x + m * p.k;
  const std::uint8_t* w = p.w + n * p.k;
  for (std::int64_t k = 0; k < p.k; k += kCodesStep) {
    Ints weights[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      weights[j] = load_lanes<Ints>(w + j * p.k + k);
      __builtin_prefetch(w + (j + kRowsAhead) * p.k + k, 0, kSecondCache);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const Ints values = load_lanes<Ints>(x + i * p.k + k);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) {
        sums[i * N + j] = (Ints)_mm512_dpbusd_epi32((__m512i)sums[i * N + j], (__m512i)weights[j],
                                                    (__m512i)values);
      }
    }
  }
  const Ints totals = add_lanes(sums);
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      const std::int32_t sum = totals[(i * N + j) * kLanes / (M * N)] - p.offsets[m + i];
      // As panels do it, in one step: a row's result is the same there.
      p.y[(m + i) * p.n + n + j] = __builtin_fmaf(static_cast<float>(sum) * p.x_scales[m + i],
                                                  p.scales[n + j], p.bias ? p.bias[n + j] : 0.0F);
    }
  }
}

template <int N>
VLM_VNNI VLM_INLINE void multiply_code_rows(const Int8Rows& p, std::int64_t n) {
  std::int64_t m = 0;
  for (; m + 4 <= p.rows; m += 4) multiply_codes<4, N>(p, m, n);
  for (; m + 2 <= p.rows; m += 2) multiply_codes<2, N>(p, m, n);
  for (; m < p.rows; ++m) multiply_codes<1, N>(p, m, n);
}

// Columns `begin` … `end` of y, for all rows of x.
VLM_VNNI void multiply_code_columns(const Int8Rows& p, std::int64_t begin, std::int64_t end) {
  prefetch_rows(p.w + begin * p.k, p.k);
  std::int64_t n = begin;
  for (; n + 4 <= end; n += 4) multiply_code_rows<4>(p, n);
  for (; n < end; ++n) multiply_code_rows<1>(p, n);
}
#else
void multiply_code_columns(const Int8Rows&, std::int64_t, std::int64_t) {
  TORCH_CHECK(false, "no products of 8 bits");
}
#endif

Tensors multiply_few(const at::Tensor& x, const std::vector<Int8Map>& maps) {
  thread_local std::vector<std::int8_t> codes;
  const std::int64_t rows = x.size(0), padded = round_up(x.size(1), kCodesStep);
  codes.resize(static_cast<std::size_t>(rows * padded));
  float x_scales[kFewRows];
  std::int32_t offsets[kFewRows];
  quantize_few(x.const_data_ptr<float>(), rows, x.size(1), padded, codes.data(), x_scales, offsets);
  Tensors results;
  std::vector<Int8Rows> products;
  for (const Int8Map& map : maps) {
    results.push_back(at::empty({rows, map.weight->out_features()}, x.options()));
    products.push_back({.x = codes.data(),
                        .x_scales = x_scales,
                        .offsets = offsets,
                        .w = map.weight->codes.const_data_ptr<std::uint8_t>(),
                        .scales = map.weight->scales.const_data_ptr<float>(),
                        .bias = bias_of(map),
                        .y = results.back().mutable_data_ptr<float>(),
                        .rows = rows,
                        .k = padded,
                        .n = map.weight->out_features()});
  }
  run_columns(products, multiply_code_columns);
  return results;
}

// ---- x in float32 ----

struct Int8Values {
  using Value = std::uint8_t;
  static constexpr std::int64_t kStep = 2 * kLanes;

  VLM_INLINE static Floats load_half(const Value* from) {
    const Ints codes = __builtin_convertvector(load_lanes<Bytes>(from), Ints);
    return __builtin_convertvector(codes - 128, Floats);
  }
  VLM_INLINE static void load(const Value* from, Floats& first, Floats& second) {
    first = load_half(from);
    second = load_half(from + kLanes);
  }
  VLM_INLINE static float widen(Value code) { return static_cast<float>(code) - 128.0F; }
};

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
  own.assign(static_cast<std::size_t>(rows * padded), 0.0F);
  for (std::int64_t i = 0; i < rows; ++i) {
    std::copy_n(x.const_data_ptr<float>() + i * k, k, own.data() + i * padded);
  }
  std::vector<WideRows> products;
  for (const Int8Map& map : maps) {
    results.push_back(at::empty({rows, map.weight->out_features()}, x.options()));
    products.push_back({.x = own.data(),
                        .w = map.weight->codes.const_data_ptr<std::uint8_t>(),
                        .scales = map.weight->scales.const_data_ptr<float>(),
                        .bias = bias_of(map),
                        .y = results.back().mutable_data_ptr<float>(),
                        .rows = rows,
                        .k = padded,
                        .n = map.weight->out_features()});
  }
  run_columns(products, multiply_wide_columns);
  return results;
}

at::Tensor rows_of(const at::Tensor& x) {
  return x.reshape({-1, x.size(-1)}).contiguous();
}

// y [M, N] in the shape of x [..., K]; no view in autograd's eyes: it may be added to in place.
at::Tensor shaped_like(const at::Tensor& x, const at::Tensor& y) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = y.size(1);
  return at::_unsafe_view(y, shape);
}

// What tells the activations how exact they have to be.
at::ScalarType product_dtype() {
  return has_int8_products() ? at::kChar : at::kFloat;
}

bool fills_panels(const at::Tensor& rows) {
  return rows.size(0) > kFewRows && has_int8_products();
}

}  // namespace

Tensors int8_linears(const at::Tensor& x, const std::vector<Int8Map>& maps, bool with_products) {
  for (const Int8Map& map : maps) {
    TORCH_CHECK(
        x.is_cpu() && x.scalar_type() == at::kFloat && x.size(-1) == map.weight->in_features,
        "int8_linear: x ", x.sizes(), " ", x.scalar_type(), ", weight ", map.weight->codes.sizes());
  }
  const at::Tensor rows = rows_of(x);
  Tensors results = !with_products             ? multiply_wide(rows, maps)
                    : rows.size(0) <= kFewRows ? multiply_few(rows, maps)
                                               : int8_panel_linears(rows, maps);
  for (at::Tensor& y : results) y = shaped_like(x, y);
  return results;
}

at::Tensor int8_gelu_mlp(const at::Tensor& x, const Int8Map& fc1, const Int8Map& fc2) {
  const at::Tensor rows = rows_of(x);
  const at::Tensor between = fills_panels(rows)
                                 ? int8_panel_gelu(rows, fc1)
                                 : gelu_tanh(int8_linears(rows, {fc1})[0], product_dtype());
  return shaped_like(x, int8_linears(between, {fc2})[0]);
}

at::Tensor int8_gated_mlp(const at::Tensor& x, const Int8Map& gate, const Int8Map& up,
                          const Int8Map& down) {
  const at::Tensor rows = rows_of(x);
  if (fills_panels(rows)) {
    return shaped_like(x, int8_linears(int8_panel_gated(rows, gate, up), {down})[0]);
  }
  const Tensors projected = int8_linears(rows, {gate, up});
  return shaped_like(
      x, int8_linears(gated_silu(projected[0], projected[1], product_dtype()), {down})[0]);
}

}  // namespace vlm

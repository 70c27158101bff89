#include "vlm/nn/cpu/int8/int8_few_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vlm/nn/cpu/few_rows.h"
#include "vlm/nn/cpu/int8/int8_weight.h"

namespace vlm {

#if defined(__x86_64__) && !defined(__clang__)
namespace {

#define VLM_VNNI __attribute__((target("arch=x86-64-v4,avx512vnni")))

// The sums of M rows of x with N rows of w.
template <int M, int N>
VLM_VNNI VLM_INLINE void multiply_code_tile(const Int8Rows& p, std::int64_t m, std::int64_t n) {
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
  for (; m + 4 <= p.rows; m += 4) multiply_code_tile<4, N>(p, m, n);
  for (; m + 2 <= p.rows; m += 2) multiply_code_tile<2, N>(p, m, n);
  for (; m < p.rows; ++m) multiply_code_tile<1, N>(p, m, n);
}

}  // namespace

VLM_VNNI void multiply_codes(const Int8Rows& p, std::int64_t begin, std::int64_t end) {
  prefetch_rows(p.w + begin * p.k, p.k);
  std::int64_t n = begin;
  for (; n + 4 <= end; n += 4) multiply_code_rows<4>(p, n);
  for (; n < end; ++n) multiply_code_rows<1>(p, n);
}

#else

// Compilers that don't pass such vectors between functions of different instruction sets.
void multiply_codes(const Int8Rows& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t m = 0; m < p.rows; ++m) {
    for (std::int64_t n = begin; n < end; ++n) {
      std::int32_t sum = -p.offsets[m];
      for (std::int64_t k = 0; k < p.k; ++k) sum += p.w[n * p.k + k] * p.x[m * p.k + k];
      p.y[m * p.n + n] =
          static_cast<float>(sum) * p.x_scales[m] * p.scales[n] + (p.bias ? p.bias[n] : 0.0F);
    }
  }
}

#endif

}  // namespace vlm

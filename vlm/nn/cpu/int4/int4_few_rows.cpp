#include "vlm/nn/cpu/int4/int4_few_rows.h"

#include <c10/util/Half.h>

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vlm/nn/cpu/int4/int4_weight.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kStride = kInt4Outputs * 4;  // bytes of a block's j
constexpr std::int64_t kBytesAhead = 4096;          // of a panel that are prefetched

// Where a panel's blocks begin, and its results in row 0.
struct PanelPlace {
  const std::uint8_t* blocks;
  std::int64_t first, outputs, groups;
};

VLM_INLINE PanelPlace place_of(const Int4Rows& p, std::int64_t panel) {
  const std::int64_t groups = p.inputs / kInt4Group;
  return {p.blocks + panel * groups * kInt4Block, panel * kInt4Outputs, p.n * kInt4Outputs, groups};
}

// Any processor.
void multiply_plainly(const Int4Rows& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const PanelPlace place = place_of(p, panel);
    for (std::int64_t m = 0; m < p.rows; ++m) {
      float sums[kInt4Outputs] = {};
      for (std::int64_t g = 0; g < place.groups; ++g) {
        const std::uint8_t* block = place.blocks + g * kInt4Block;
        const std::int8_t* x = p.x + m * p.inputs + g * kInt4Group;
        for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
          std::int32_t sum = 0;
          for (std::int64_t i = 0; i < kInt4Group / 2; ++i) {
            const std::uint8_t byte = block[i / 4 * kStride + r * 4 + i % 4];
            const std::int8_t* pair = x + i / 4 * 8 + i % 4;
            sum += p.levels[byte & 15] * pair[0] + p.levels[byte >> 4] * pair[4];
          }
          c10::Half scale;
          std::memcpy(&scale, block + kInt4Codes + 2 * r, sizeof scale);
          const float scaled = static_cast<float>(sum) * p.x_scales[m * place.groups + g];
          sums[r] = __builtin_fmaf(scaled, static_cast<float>(scale), sums[r]);
        }
      }
      float* y = p.y + m * place.outputs + place.first;
      for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
        y[r] = sums[r] + (p.bias ? p.bias[place.first + r] : 0.0F);
      }
    }
  }
}

#if defined(__x86_64__) && !defined(__clang__)

#define VLM_INT4_VNNI __attribute__((target("arch=x86-64-v4,avx512vnni")))
#define VLM_INT4_AVX2 __attribute__((target("arch=x86-64-v3")))

VLM_INLINE std::int32_t load_four(const std::int8_t* from) {
  std::int32_t four;
  std::memcpy(&four, from, sizeof four);
  return four;
}

// M rows of x with a panel. The levels are stored plus 128, as the processor multiplies unsigned
// with signed bytes.
template <int M>
VLM_INT4_VNNI VLM_INLINE void multiply_vnni_tile(const Int4Rows& p, const PanelPlace& place,
                                                 std::int64_t m) {
  const __m512i low = _mm512_set1_epi8(15);
  const __m512i levels = _mm512_xor_si512(
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.levels))),
      _mm512_set1_epi8(-128));
  const std::int8_t* x = p.x + m * p.inputs;
  __m512 totals[M];
  for (int i = 0; i < M; ++i) totals[i] = _mm512_setzero_ps();
  for (std::int64_t g = 0; g < place.groups; ++g) {
    const std::uint8_t* block = place.blocks + g * kInt4Block;
    __m512i firsts[M], seconds[M];
    for (int i = 0; i < M; ++i) {
      firsts[i] = _mm512_set1_epi32(-p.offsets[(m + i) * place.groups + g]);
      seconds[i] = _mm512_setzero_si512();
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i bytes = _mm512_loadu_si512(block + j * kStride);
      __builtin_prefetch(block + j * kStride + kBytesAhead, 0, kSecondCache);
      const __m512i first = _mm512_shuffle_epi8(levels, _mm512_and_si512(bytes, low));
      const __m512i second =
          _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low));
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const std::int8_t* eight = x + i * p.inputs + g * kInt4Group + 8 * j;
        firsts[i] = _mm512_dpbusd_epi32(firsts[i], first, _mm512_set1_epi32(load_four(eight)));
        seconds[i] =
            _mm512_dpbusd_epi32(seconds[i], second, _mm512_set1_epi32(load_four(eight + 4)));
      }
    }
    const __m512 scales =
        _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + kInt4Codes)));
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const __m512 sums = _mm512_cvtepi32_ps(_mm512_add_epi32(firsts[i], seconds[i]));
      const __m512 scaled =
          _mm512_mul_ps(sums, _mm512_set1_ps(p.x_scales[(m + i) * place.groups + g]));
      totals[i] = _mm512_fmadd_ps(scaled, scales, totals[i]);
    }
  }
  const __m512 bias = p.bias ? _mm512_loadu_ps(p.bias + place.first) : _mm512_setzero_ps();
  for (int i = 0; i < M; ++i) {
    _mm512_storeu_ps(p.y + (m + i) * place.outputs + place.first, _mm512_add_ps(totals[i], bias));
  }
}

VLM_INT4_VNNI void multiply_vnni(const Int4Rows& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const PanelPlace place = place_of(p, panel);
    std::int64_t m = 0;
    for (; m + 4 <= p.rows; m += 4) multiply_vnni_tile<4>(p, place, m);
    for (; m + 2 <= p.rows; m += 2) multiply_vnni_tile<2>(p, place, m);
    for (; m < p.rows; ++m) multiply_vnni_tile<1>(p, place, m);
  }
}

// x · levels of 8 outputs × 4 inputs, summed by output. The magnitude of x is the unsigned side:
// two products of at most 127 · 127 fit 16 bits.
VLM_INT4_AVX2 VLM_INLINE __m256i multiply_fours(__m256i levels, std::int32_t four) {
  const __m256i x = _mm256_set1_epi32(four);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(levels, x));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

// M rows of x with 8 outputs of a panel, from `half` on.
template <int M>
VLM_INT4_AVX2 VLM_INLINE void multiply_avx2_tile(const Int4Rows& p, const PanelPlace& place,
                                                 std::int64_t m, std::int64_t half) {
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i levels =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.levels)));
  const std::int8_t* x = p.x + m * p.inputs;
  __m256 totals[M];
  for (int i = 0; i < M; ++i) totals[i] = _mm256_setzero_ps();
  for (std::int64_t g = 0; g < place.groups; ++g) {
    const std::uint8_t* block = place.blocks + g * kInt4Block;
    __m256i sums[M];
    for (int i = 0; i < M; ++i) sums[i] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i bytes =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + j * kStride + half * 4));
      const __m256i first = _mm256_shuffle_epi8(levels, _mm256_and_si256(bytes, low));
      const __m256i second =
          _mm256_shuffle_epi8(levels, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low));
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const std::int8_t* eight = x + i * p.inputs + g * kInt4Group + 8 * j;
        sums[i] = _mm256_add_epi32(sums[i], multiply_fours(first, load_four(eight)));
        sums[i] = _mm256_add_epi32(sums[i], multiply_fours(second, load_four(eight + 4)));
      }
    }
    const __m256 scales = _mm256_cvtph_ps(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kInt4Codes + half * 2)));
    for (int i = 0; i < M; ++i) {
      const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[i]),
                                          _mm256_set1_ps(p.x_scales[(m + i) * place.groups + g]));
      totals[i] = _mm256_fmadd_ps(scaled, scales, totals[i]);
    }
  }
  const __m256 bias = p.bias ? _mm256_loadu_ps(p.bias + place.first + half) : _mm256_setzero_ps();
  for (int i = 0; i < M; ++i) {
    _mm256_storeu_ps(p.y + (m + i) * place.outputs + place.first + half,
                     _mm256_add_ps(totals[i], bias));
  }
}

VLM_INT4_AVX2 void multiply_avx2(const Int4Rows& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const PanelPlace place = place_of(p, panel);
    for (const std::int64_t half : {std::int64_t{0}, kInt4Outputs / 2}) {
      std::int64_t m = 0;
      for (; m + 2 <= p.rows; m += 2) multiply_avx2_tile<2>(p, place, m, half);
      for (; m < p.rows; ++m) multiply_avx2_tile<1>(p, place, m, half);
    }
  }
}

#endif

}  // namespace

const std::vector<Int4Kernel>& int4_kernels() {
  static const std::vector<Int4Kernel> kernels = {
#if defined(__x86_64__) && !defined(__clang__)
    {"AVX512-VNNI",
     __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0,
     multiply_vnni},
    {"AVX2",
     __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
         __builtin_cpu_supports("f16c") != 0,
     multiply_avx2},
#endif
    {"plain", true, multiply_plainly},
  };
  return kernels;
}

}  // namespace vlm

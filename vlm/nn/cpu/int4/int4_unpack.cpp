// Weights in 4 bits as 8 bits (unpack_int4).
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vlm/nn/cpu/int4/int4_product.h"
#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr float kUnit = 32767.0F;  // of the factors that levels are multiplied with
constexpr std::int64_t kPairWords = 2 * kInt4Group / 4;  // words of an output in two groups

// The levels, stretched to 8 bits, and what turns the scales of a panel's outputs into factors of
// kUnit at most.
struct Stretched {
  Int4Levels levels;
  float inverses[kInt4Outputs];
};

Stretched stretch(const Int4Weight& weight, std::int64_t first) {
  Stretched made{};
  const int by = int4_stretch(weight.levels);
  for (std::size_t i = 0; i < made.levels.size(); ++i) {
    made.levels[i] = static_cast<std::int8_t>(by * weight.levels[i]);
  }
  const float* scales = weight.row_scales.const_data_ptr<float>() + first;
  for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
    const float largest = scales[r] * static_cast<float>(by);
    made.inverses[r] = largest > 0 ? kUnit / largest : 0.0F;  // 0 for NaN, whose scale spoils it
  }
  return made;
}

#if defined(__x86_64__) && !defined(__clang__)

#define VLM_UNPACK __attribute__((target("arch=x86-64-v4,avx512vnni")))

// Codes of 16 outputs × 4 inputs → level · factor, rounded, plus 128. `factors` holds an output's
// factor twice, as 16 bits.
VLM_UNPACK VLM_INLINE Words round_codes(__m512i codes, __m512i levels, __m512i factors) {
  const __m512i wide = _mm512_shuffle_epi8(levels, codes);
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(wide, 8), 8);
  const __m512i odd = _mm512_srai_epi16(wide, 8);
  const __m512i low = _mm512_mulhrs_epi16(even, factors);
  const __m512i high = _mm512_slli_epi16(_mm512_mulhrs_epi16(odd, factors), 8);
  // Bits of `low` where the mask is set, else those of `high`.
  const __m512i both = _mm512_ternarylogic_epi32(_mm512_set1_epi16(0xFF), low, high, 0xCA);
  return (Words)_mm512_xor_si512(both, _mm512_set1_epi8(-128));
}

VLM_UNPACK VLM_INLINE __m512i factors_of(const std::uint8_t* block, const Stretched& stretched) {
  const __m512 scales =
      _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + kInt4Codes)));
  const __m512 factors = _mm512_mul_ps(scales, _mm512_loadu_ps(stretched.inverses));
  const __m512i whole = _mm512_and_si512(_mm512_cvtps_epi32(factors), _mm512_set1_epi32(0xFFFF));
  return _mm512_or_si512(whole, _mm512_slli_epi32(whole, 16));
}

// A panel, two groups at a time; behind the last of an odd number zeros.
VLM_UNPACK void unpack_panel(const std::uint8_t* blocks, std::int64_t groups, std::int64_t padded,
                             const Stretched& stretched, std::uint8_t* to) {
  const __m512i low = _mm512_set1_epi8(15);
  const __m512i levels = _mm512_broadcast_i32x4(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(stretched.levels.data())));
  for (std::int64_t g = 0; g < groups; g += 2) {
    Words words[kPairWords];
    for (int i = 0; i < kPairWords; ++i) words[i] = Words{} + 0x80808080U;
    const std::int64_t count = std::min<std::int64_t>(2, groups - g);
    for (std::int64_t half = 0; half < count; ++half) {
      const std::uint8_t* block = blocks + (g + half) * kInt4Block;
      const __m512i factors = factors_of(block, stretched);
      for (std::int64_t j = 0; j < 4; ++j) {
        const __m512i bytes = _mm512_loadu_si512(block + j * 64);
        words[half * 8 + 2 * j] = round_codes(_mm512_and_si512(bytes, low), levels, factors);
        words[half * 8 + 2 * j + 1] =
            round_codes(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), low), levels, factors);
      }
    }
    transpose_lanes(words);
    for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
      std::memcpy(to + r * padded + g * kInt4Group, &words[r], sizeof words[r]);
    }
  }
}

#else

void unpack_panel(const std::uint8_t* blocks, std::int64_t groups, std::int64_t padded,
                  const Stretched& stretched, std::uint8_t* to) {
  for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
    std::uint8_t* row = to + r * padded;
    std::memset(row, 128, static_cast<std::size_t>(padded));
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::uint8_t* block = blocks + g * kInt4Block;
      c10::Half scale;
      std::memcpy(&scale, block + kInt4Codes + 2 * r, sizeof scale);
      const auto factor = static_cast<std::int32_t>(
          std::nearbyint(static_cast<float>(scale) * stretched.inverses[r]));
      const auto code = [&](int level) {
        return static_cast<std::uint8_t>(128 + ((stretched.levels[level] * factor + 0x4000) >> 15));
      };
      for (std::int64_t i = 0; i < kInt4Group / 2; ++i) {
        const std::uint8_t byte = block[i / 4 * 64 + r * 4 + i % 4];
        std::uint8_t* pair = row + g * kInt4Group + i / 4 * 8 + i % 4;
        pair[0] = code(byte & 15);
        pair[4] = code(byte >> 4);
      }
    }
  }
}

#endif

}  // namespace

void unpack_int4(const Int4Weight& weight, std::int64_t first, std::int64_t count,
                 std::uint8_t* codes) {
  const std::int64_t padded = round_up(weight.in_features(), kCodesStep);
  for (std::int64_t n = first; n < first + count; n += kInt4Outputs) {
    unpack_panel(weight.panel(n / kInt4Outputs), weight.blocks.size(1), padded, stretch(weight, n),
                 codes + (n - first) * padded);
  }
}

}  // namespace vlm

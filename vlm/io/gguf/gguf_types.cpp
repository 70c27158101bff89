#include "vlm/io/gguf/gguf_types.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include "vlm/core/concat.h"

namespace vlm {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF data is little-endian");

constexpr std::array<GgufBlock, 17> kBlocks = {{
    {GgufType::kF32, "F32", 1, 4, 0},
    {GgufType::kF16, "F16", 1, 2, 1},
    {GgufType::kQ4_0, "Q4_0", 32, 18, 2},
    {GgufType::kQ4_1, "Q4_1", 32, 20, 3},
    {GgufType::kQ5_0, "Q5_0", 32, 22, 8},
    {GgufType::kQ5_1, "Q5_1", 32, 24, 9},
    {GgufType::kQ8_0, "Q8_0", 32, 34, 7},
    {GgufType::kQ2_K, "Q2_K", 256, 84, 10},
    {GgufType::kQ3_K, "Q3_K", 256, 110, 12},
    {GgufType::kQ4_K, "Q4_K", 256, 144, 15},
    {GgufType::kQ5_K, "Q5_K", 256, 176, 17},
    {GgufType::kQ6_K, "Q6_K", 256, 210, 18},
    {GgufType::kIQ4_NL, "IQ4_NL", 32, 18, 25},
    {GgufType::kIQ4_XS, "IQ4_XS", 256, 136, 30},
    {GgufType::kBF16, "BF16", 1, 2, 32},
    {GgufType::kMXFP4, "MXFP4", 32, 17, 38},
    {GgufType::kNVFP4, "NVFP4", 64, 36, 39},
}};

struct RareType {
  std::uint32_t type;
  const char* name;
};
constexpr std::array<RareType, 19> kRare = {{
    {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
    {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {24, "I8"},     {25, "I16"},
    {26, "I32"},   {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},
    {35, "TQ2_0"}, {41, "Q1_0"},  {42, "Q2_0"},    {43, "Q3_0"},
}};

// Levels of IQ4_NL and IQ4_XS.
constexpr std::array<float, 16> kNear = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of a float of four bits.
constexpr std::array<float, 16> kTwiceFp4 = {0, 1,  2,  3,  4,  6,  8,  12,
                                             0, -1, -2, -3, -4, -6, -8, -12};

float half_at(const std::uint8_t* at) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16, rest = bits & 0x7FFFU;
  if (rest >= 0x7C00U) return std::bit_cast<float>(sign | 0x7F800000U | (rest & 0x3FFU) << 13);
  if (rest >= 0x400U) return std::bit_cast<float>(sign | ((rest << 13) + 0x38000000U));
  const float small = static_cast<float>(rest) * 0x1p-24F;
  return sign != 0 ? -small : small;
}

std::uint32_t word_at(const std::uint8_t* at) {
  std::uint32_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

float low(std::uint8_t byte) {
  return static_cast<float>(byte & 15);
}

float high(std::uint8_t byte) {
  return static_cast<float>(byte >> 4);
}

void widen_f32(const std::uint8_t* block, float* to) {
  std::memcpy(to, block, sizeof *to);
}

void widen_f16(const std::uint8_t* block, float* to) {
  *to = half_at(block);
}

void widen_bf16(const std::uint8_t* block, float* to) {
  *to = std::bit_cast<float>(std::uint32_t{block[0]} << 16 | std::uint32_t{block[1]} << 24);
}

void widen_q4_0(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    to[j] = d * (low(block[2 + j]) - 8);
    to[j + 16] = d * (high(block[2 + j]) - 8);
  }
}

void widen_q4_1(const std::uint8_t* block, float* to) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    to[j] = d * low(block[4 + j]) + m;
    to[j + 16] = d * high(block[4 + j]) + m;
  }
}

// Sixteen if bit `e` of the fifth bits is set.
float fifth(std::uint32_t bits, int e) {
  return static_cast<float>((bits >> e & 1U) << 4);
}

void widen_q5_0(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const std::uint32_t bits = word_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    to[j] = d * (low(block[6 + j]) + fifth(bits, j) - 16);
    to[j + 16] = d * (high(block[6 + j]) + fifth(bits, j + 16) - 16);
  }
}

void widen_q5_1(const std::uint8_t* block, float* to) {
  const float d = half_at(block), m = half_at(block + 2);
  const std::uint32_t bits = word_at(block + 4);
  for (int j = 0; j < 16; ++j) {
    to[j] = d * (low(block[8 + j]) + fifth(bits, j)) + m;
    to[j + 16] = d * (high(block[8 + j]) + fifth(bits, j + 16)) + m;
  }
}

void widen_q8_0(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  for (int j = 0; j < 32; ++j)
    to[j] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + j]));
}

// Two bits of value e in the bytes of Q2_K and Q3_K.
float two_bits(const std::uint8_t* q, int e) {
  return static_cast<float>(q[32 * (e / 128) + e % 32] >> 2 * (e / 32 % 4) & 3);
}

void widen_q2_k(const std::uint8_t* block, float* to) {
  const std::uint8_t* q = block + 16;
  const float d = half_at(block + 80), dmin = half_at(block + 82);
  for (int e = 0; e < 256; ++e) {
    const std::uint8_t scale = block[e / 16];
    to[e] = d * low(scale) * two_bits(q, e) - dmin * high(scale);
  }
}

// Scale g of Q3_K, of six bits.
float scale_of_q3_k(const std::uint8_t* s, int g) {
  const int lower = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
  const int upper = s[8 + g % 4] >> 2 * (g / 4) & 3;
  return static_cast<float>((lower | upper << 4) - 32);
}

void widen_q3_k(const std::uint8_t* block, float* to) {
  const std::uint8_t* q = block + 32;
  const float d = half_at(block + 108);
  for (int e = 0; e < 256; ++e) {
    const bool has_upper = (block[e % 32] >> e / 32 & 1) != 0;
    to[e] = d * scale_of_q3_k(block + 96, e / 16) * (two_bits(q, e) - (has_upper ? 0.0F : 4.0F));
  }
}

struct ScaleAndMinimum {
  float scale, minimum;
};

// Of group g of Q4_K and Q5_K, of six bits each.
ScaleAndMinimum pair_of_k(const std::uint8_t* s, int g) {
  if (g < 4) return {static_cast<float>(s[g] & 63), static_cast<float>(s[g + 4] & 63)};
  return {static_cast<float>((s[g + 4] & 15) | s[g - 4] >> 6 << 4),
          static_cast<float>(s[g + 4] >> 4 | s[g] >> 6 << 4)};
}

void widen_q4_k(const std::uint8_t* block, float* to) {
  const float d = half_at(block), dmin = half_at(block + 2);
  for (int g = 0; g < 8; ++g) {
    const ScaleAndMinimum pair = pair_of_k(block + 4, g);
    const float step = d * pair.scale, minimum = dmin * pair.minimum;
    const std::uint8_t* q = block + 16 + 32 * (g / 2);
    for (int l = 0; l < 32; ++l) {
      to[32 * g + l] = step * (g % 2 == 0 ? low(q[l]) : high(q[l])) - minimum;
    }
  }
}

void widen_q5_k(const std::uint8_t* block, float* to) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const std::uint8_t* upper = block + 16;
  for (int g = 0; g < 8; ++g) {
    const ScaleAndMinimum pair = pair_of_k(block + 4, g);
    const float step = d * pair.scale, minimum = dmin * pair.minimum;
    const std::uint8_t* q = block + 48 + 32 * (g / 2);
    for (int l = 0; l < 32; ++l) {
      const float code = (g % 2 == 0 ? low(q[l]) : high(q[l])) + fifth(upper[l], g);
      to[32 * g + l] = step * code - minimum;
    }
  }
}

void widen_q6_k(const std::uint8_t* block, float* to) {
  const std::uint8_t *lower = block, *upper = block + 128, *scales = block + 192;
  const float d = half_at(block + 208);
  for (int e = 0; e < 256; ++e) {
    const int half = e / 128, j = e / 32 % 4, l = e % 32;
    const std::uint8_t byte = lower[64 * half + 32 * (j % 2) + l];
    const int code = (j < 2 ? byte & 15 : byte >> 4) | (upper[32 * half + l] >> 2 * j & 3) << 4;
    const auto scale = static_cast<std::int8_t>(scales[8 * half + 2 * j + l / 16]);
    to[e] = d * static_cast<float>(scale) * static_cast<float>(code - 32);
  }
}

void widen_iq4_nl(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    to[j] = d * kNear[block[2 + j] & 15];
    to[j + 16] = d * kNear[block[2 + j] >> 4];
  }
}

void widen_iq4_xs(const std::uint8_t* block, float* to) {
  const float d = half_at(block);
  const int upper = block[2] | block[3] << 8;
  for (int g = 0; g < 8; ++g) {
    const int scale = (block[4 + g / 2] >> 4 * (g % 2) & 15) | (upper >> 2 * g & 3) << 4;
    const float step = d * static_cast<float>(scale - 32);
    const std::uint8_t* q = block + 8 + 16 * g;
    for (int j = 0; j < 16; ++j) {
      to[32 * g + j] = step * kNear[q[j] & 15];
      to[32 * g + j + 16] = step * kNear[q[j] >> 4];
    }
  }
}

void widen_mxfp4(const std::uint8_t* block, float* to) {
  const std::uint32_t x = block[0];
  const float half = std::bit_cast<float>(x < 2 ? 0x00200000U << x : (x - 1) << 23);  // 2^(x - 128)
  for (int j = 0; j < 16; ++j) {
    to[j] = half * kTwiceFp4[block[1 + j] & 15];
    to[j + 16] = half * kTwiceFp4[block[1 + j] >> 4];
  }
}

// Half of a number of four bits of exponent and three of mantissa, without sign.
float half_of_e4m3(std::uint8_t x) {
  if (x == 0 || x == 0x7F) return 0;
  const int exponent = x >> 3 & 15, mantissa = x & 7;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10F;
  return (1 + static_cast<float>(mantissa) / 8) *
         std::bit_cast<float>(static_cast<std::uint32_t>(exponent - 7 - 1 + 127) << 23);
}

void widen_nvfp4(const std::uint8_t* block, float* to) {
  for (int s = 0; s < 4; ++s) {
    const float half = half_of_e4m3(block[s]);
    const std::uint8_t* q = block + 4 + 8 * s;
    for (int j = 0; j < 8; ++j) {
      to[16 * s + j] = half * kTwiceFp4[q[j] & 15];
      to[16 * s + j + 8] = half * kTwiceFp4[q[j] >> 4];
    }
  }
}

using WidenBlock = void (*)(const std::uint8_t* block, float* to);

WidenBlock find_widener(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return widen_f32;
    case GgufType::kF16:
      return widen_f16;
    case GgufType::kBF16:
      return widen_bf16;
    case GgufType::kQ4_0:
      return widen_q4_0;
    case GgufType::kQ4_1:
      return widen_q4_1;
    case GgufType::kQ5_0:
      return widen_q5_0;
    case GgufType::kQ5_1:
      return widen_q5_1;
    case GgufType::kQ8_0:
      return widen_q8_0;
    case GgufType::kQ2_K:
      return widen_q2_k;
    case GgufType::kQ3_K:
      return widen_q3_k;
    case GgufType::kQ4_K:
      return widen_q4_k;
    case GgufType::kQ5_K:
      return widen_q5_k;
    case GgufType::kQ6_K:
      return widen_q6_k;
    case GgufType::kIQ4_NL:
      return widen_iq4_nl;
    case GgufType::kIQ4_XS:
      return widen_iq4_xs;
    case GgufType::kMXFP4:
      return widen_mxfp4;
    case GgufType::kNVFP4:
      return widen_nvfp4;
  }
  return nullptr;
}

}  // namespace

const GgufBlock* find_gguf_block(std::uint32_t type) {
  const auto* found = std::ranges::find_if(kBlocks, [&](const GgufBlock& block) {
    return static_cast<std::uint32_t>(block.type) == type;
  });
  return found == kBlocks.end() ? nullptr : found;
}

const GgufBlock& gguf_block(GgufType type) {
  return *find_gguf_block(static_cast<std::uint32_t>(type));
}

std::string gguf_type_name(std::uint32_t type) {
  if (const GgufBlock* block = find_gguf_block(type)) return block->name;
  for (const RareType& rare : kRare) {
    if (rare.type == type) return rare.name;
  }
  return concat("type ", type);
}

void widen_gguf(GgufType type, const std::uint8_t* blocks, std::int64_t values, float* to) {
  const GgufBlock& block = gguf_block(type);
  const WidenBlock widen = find_widener(type);
  for (std::int64_t i = 0; i < values; i += block.values, blocks += block.bytes) {
    widen(blocks, to + i);
  }
}

}  // namespace vlm

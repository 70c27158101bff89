#include "vlm/nn/cpu/int4/even_codes.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <bit>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/int4/int4_weight.h"
#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr int kHalfTrials = 9;  // on either side
constexpr float kTrialStep = 0.1F, kLeastLevel = -8, kMostLevel = 7;
constexpr int kEvenVectors = kInt4Group / kLanes;
constexpr float kLeastScaled = 1e-30F;

VLM_INLINE float sum_lanes(Floats values) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += values[lane];
  return sum;
}

VLM_INLINE Floats nearest_levels(Floats scaled) {
  const Floats least = Floats{} + kLeastLevel, most = Floats{} + kMostLevel;
  scaled = scaled < least ? least : scaled;
  scaled = scaled > most ? most : scaled;
  return (scaled + kRound) - kRound;
}

VLM_INLINE float to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7FFFU + (bits >> 16 & 1U)) & 0xFFFF0000U);
}

VLM_INLINE float search_scale(const Floats* values, const Floats* weights, float largest) {
  float best = 0, scale = 0;
  for (int trial = -kHalfTrials; trial <= kHalfTrials; ++trial) {
    const float factor = (kLeastLevel - kTrialStep * static_cast<float>(trial)) / largest;
    Floats products = {}, squares = {};
    for (int v = 0; v < kEvenVectors; ++v) {
      const Floats levels = nearest_levels(values[v] * factor);
      products += weights[v] * values[v] * levels;
      squares += weights[v] * levels * levels;
    }
    const float product = sum_lanes(products), square = sum_lanes(squares);
    if (!(square > 0) || !(product * product > best * square)) continue;
    scale = product / square;
    best = product * scale;
  }
  return to_bfloat16(scale);
}

struct EvenRow {
  const float* values;
  const float* importance;  // null: all alike
  std::int64_t groups;
  std::uint8_t* codes;
  float* scales;
};

VLM_CLONES void code_even_row(const EvenRow& row) {
  for (std::int64_t g = 0; g < row.groups; ++g) {
    Floats values[kEvenVectors], weights[kEvenVectors];
    float largest = 0, magnitude = 0;
    for (int v = 0; v < kEvenVectors; ++v) {
      values[v] = load_lanes<Floats>(row.values + g * kInt4Group + v * kLanes);
      weights[v] = row.importance ? load_lanes<Floats>(row.importance + g * kInt4Group + v * kLanes)
                                  : Floats{} + 1.0F;
      for (int lane = 0; lane < kLanes; ++lane) {
        const float own = values[v][lane], size = own < 0 ? -own : own;
        largest = size > magnitude ? own : largest;
        magnitude = size > magnitude ? size : magnitude;
      }
    }
    const float scale = magnitude > kLeastScaled ? search_scale(values, weights, largest) : 0.0F;
    const float factor = scale != 0 ? 1.0F / scale : 0.0F;
    row.scales[g] = scale;
    for (int v = 0; v < kEvenVectors; ++v) {
      const Floats levels = nearest_levels(values[v] * factor);
      for (int lane = 0; lane < kLanes; ++lane) {
        row.codes[g * kInt4Group + v * kLanes + lane] =
            static_cast<std::uint8_t>(static_cast<int>(levels[lane]) + 8);
      }
    }
  }
}

}  // namespace

EvenCodes search_even_codes(const at::Tensor& weight, const at::Tensor& importance) {
  const std::int64_t n = weight.size(0), k = weight.size(1), groups = k / kInt4Group;
  TORCH_CHECK(k % kInt4Group == 0 && weight.is_cpu(), "search_even_codes: ", weight.sizes());
  at::Tensor wide;
  if (importance.defined()) wide = importance.to(at::kFloat).contiguous();
  EvenCodes coded{.codes = at::empty({n, k}, at::kByte),
                  .scales = at::empty({n, groups}, at::kFloat)};
  auto* codes = coded.codes.mutable_data_ptr<std::uint8_t>();
  auto* scales = coded.scales.mutable_data_ptr<float>();
  run_pieces(n, [&](std::int64_t i) {
    code_even_row({.values = wide_values(weight.narrow(0, i, 1)),
                   .importance = wide.defined() ? wide.const_data_ptr<float>() : nullptr,
                   .groups = groups,
                   .codes = codes + i * k,
                   .scales = scales + i * groups});
  });
  return coded;
}

at::Tensor dequantize_even(const EvenCodes& coded) {
  return (coded.codes.to(at::kFloat) - 8)
      .view({coded.codes.size(0), -1, kInt4Group})
      .mul_(coded.scales.unsqueeze(2))
      .view(coded.codes.sizes());
}

}  // namespace vlm

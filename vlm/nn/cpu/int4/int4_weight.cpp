#include "vlm/nn/cpu/int4/int4_weight.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr int kGroupVectors = kInt4Group / kLanes;
constexpr float kLeastMagnitude = 1e-30F;
constexpr int kTrials = 3;  // scales that are tried for a group

using SignedBytes = std::int8_t __attribute__((vector_size(kLanes)));
using SignedHalves = std::int16_t __attribute__((vector_size(kLanes * sizeof(std::int16_t))));

// How to find the nearest of kNearLevels for integers from -128 to 127. Those of equal upper four
// bits (after adding 128) are above `counts` of the middles between levels, and perhaps above one
// or two more.
struct NearTable {
  std::array<std::int8_t, 16> counts, firsts, seconds;
};

constexpr NearTable make_near_table() {
  NearTable made{};
  for (int i = 0; i < 16; ++i) {
    const int least = 16 * i - 128, most = least + 15;
    std::array<std::int8_t, 2> inside = {127, 127};
    std::size_t found = 0;
    for (std::size_t level = 0; level < 15; ++level) {
      const int sum = kNearLevels[level] + kNearLevels[level + 1];
      const int middle = (sum - (sum < 0 && sum % 2 != 0 ? 1 : 0)) / 2;  // rounded down
      if (middle < least) ++made.counts[i];
      if (middle >= least && middle < most) inside.at(found++) = static_cast<std::int8_t>(middle);
    }
    made.firsts[i] = inside[0];
    made.seconds[i] = inside[1];
  }
  return made;
}

constexpr NearTable kNearTable = make_near_table();

// The table's entries at the places `at`, from 0 to 15.
VLM_INLINE SignedBytes entries_of(const std::array<std::int8_t, kLanes>& table, Bytes at) {
#ifdef __clang__  // has no shuffle by numbers that it doesn't know
  SignedBytes found;
  for (std::int64_t i = 0; i < kLanes; ++i) found[i] = table[at[i]];
  return found;
#else
  return (SignedBytes)__builtin_shuffle(load_lanes<Bytes>(table.data()), at);
#endif
}

// Codes of the levels nearest to numbers, which are rounded to integers first.
VLM_INLINE Bytes find_codes(Floats values) {
  const Floats least = Floats{} - 128.0F, most = Floats{} + 127.0F;
  values = values < least ? least : values;
  values = values > most ? most : values;
  const Bytes bytes = lowest_bytes((Words)(values + kRound));
  const Bytes upper = (bytes ^ 128) >> 4;
  const auto own = (SignedBytes)bytes;
  // A comparison that holds is -1.
  return (Bytes)(entries_of(kNearTable.counts, upper) -
                 (own > entries_of(kNearTable.firsts, upper)) -
                 (own > entries_of(kNearTable.seconds, upper)));
}

VLM_INLINE Floats levels_of(Bytes codes) {
  const SignedBytes levels = entries_of(kNearLevels, codes);
  // In steps, as compilers make many instructions of one.
  const auto wider = __builtin_convertvector(levels, SignedHalves);
  return __builtin_convertvector(__builtin_convertvector(wider, Ints), Floats);
}

// The value of largest magnitude becomes the lowest level, the first of several as in llama.cpp; a
// value between two levels becomes the upper one.
VLM_INLINE void code_evenly(const float* values, CodedGroup& to) {
  float largest = 0, magnitude = 0;
  for (std::int64_t i = 0; i < kInt4Group; ++i) {
    const float own = values[i] < 0 ? -values[i] : values[i];
    largest = own > magnitude ? values[i] : largest;
    magnitude = own > magnitude ? own : magnitude;
  }
  to.scale = largest / static_cast<float>(kEvenLevels[0]);
  const float factor = 1.0F / to.scale;
  for (std::int64_t i = 0; i < kInt4Group; ++i) {
    const auto code = static_cast<std::int32_t>(values[i] * factor + 8.5F);
    to.codes[i] = static_cast<std::uint8_t>(code < 15 ? code : 15);
  }
}

// Scales around that which makes the value of largest magnitude the lowest level are tried. For
// each the nearest levels are found, and the scale is fitted to them by least squares; the one that
// leaves the least error is taken, and the levels are found again.
VLM_INLINE void code_nearly(const float* values, float largest, CodedGroup& to) {
  constexpr float kShifts[kTrials] = {0.0F, -7.0F, 7.0F};
  Floats group[kGroupVectors];
  for (int v = 0; v < kGroupVectors; ++v) group[v] = load_lanes<Floats>(values + v * kLanes);
  Floats sums[8] = {};  // of each trial: of the values times their levels, of the levels' squares
  for (int trial = 0; trial < kTrials; ++trial) {
    const float factor = (static_cast<float>(kNearLevels[0]) + kShifts[trial]) / largest;
    for (int v = 0; v < kGroupVectors; ++v) {
      const Floats levels = levels_of(find_codes(group[v] * factor));
      sums[2 * trial] += group[v] * levels;
      sums[2 * trial + 1] += levels * levels;
    }
  }
  const Floats totals = add_lanes(sums);
  float most = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const float products = totals[4 * trial], squares = totals[4 * trial + 2];
    const float won = products * products / squares;  // of the sum of squares
    if (!(won > most)) continue;
    most = won;
    to.scale = products / squares;
  }
  for (int v = 0; v < kGroupVectors; ++v) {
    const Bytes codes = find_codes(group[v] * (1.0F / to.scale));
    std::memcpy(to.codes + v * kLanes, &codes, sizeof codes);
  }
}

struct ValueRows {
  const float* values;
  std::int64_t rows, k;
};

VLM_CLONES void code_rows(const ValueRows& rows, bool is_even, CodedGroup* to) {
  const float* values = rows.values;
  for (std::int64_t i = 0; i < rows.rows * (rows.k / kInt4Group); ++i, values += kInt4Group) {
    Floats most = {}, least = {}, differences = {};
    for (std::int64_t v = 0; v < kGroupVectors; ++v) {
      const Floats own = load_lanes<Floats>(values + v * kLanes);
      most = larger(own, most);
      least = larger(-own, least);
      differences += own - own;
    }
    const float upper = largest_lane(most), lower = largest_lane(least);
    Floats rests[1] = {differences};
    const float rest = add_lanes(rests)[0];  // NaN where a value isn't finite
    to[i] = CodedGroup{.scale = 0, .codes = {}};
    if (rest != 0.0F) {
      to[i].scale = rest;
    } else if (upper < kLeastMagnitude && lower < kLeastMagnitude) {
      continue;  // with scale 0
    } else if (is_even) {
      code_evenly(values, to[i]);
    } else {
      code_nearly(values, upper > lower ? upper : -lower, to[i]);
    }
  }
}

void pack_block(const CodedGroup* groups, std::int64_t stride, std::uint8_t* block) {
  for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
    const CodedGroup& group = groups[r * stride];
    for (std::int64_t j = 0; j < 4; ++j) {
      for (std::int64_t i = 0; i < 4; ++i) {
        block[j * 64 + r * 4 + i] =
            static_cast<std::uint8_t>(group.codes[8 * j + i] | group.codes[8 * j + 4 + i] << 4);
      }
    }
    const c10::Half scale(group.scale);
    std::memcpy(block + kInt4Codes + 2 * r, &scale, sizeof scale);
  }
}

// Scale of output r in a block.
float scale_at(const std::uint8_t* block, std::int64_t r) {
  c10::Half scale;
  std::memcpy(&scale, block + kInt4Codes + 2 * r, sizeof scale);
  return static_cast<float>(scale);
}

float find_row_scale(const std::uint8_t* panel, std::int64_t groups, std::int64_t r) {
  float largest = 0, differences = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const float scale = scale_at(panel + g * kInt4Block, r);
    largest = std::max(largest, std::abs(scale));
    differences += scale - scale;
  }
  return largest + differences;
}

}  // namespace

int int4_stretch(const Int4Levels& levels) {
  int most = 1;
  for (const std::int8_t level : levels) most = std::max(most, std::abs(int{level}));
  return 127 / most;
}

bool fits_int4(std::int64_t out_features, std::int64_t in_features) {
  return out_features > 0 && in_features > 0 && out_features % kInt4Outputs == 0 &&
         in_features % kInt4Group == 0 && in_features <= kMostInt8Depth;
}

Int4Weight pack_int4(std::int64_t out_features, std::int64_t in_features, const Int4Levels& levels,
                     const std::function<void(std::int64_t, CodedGroup*)>& fill) {
  TORCH_CHECK(fits_int4(out_features, in_features), "no weight of 4 bits has the shape [",
              out_features, ", ", in_features, "]");
  const std::int64_t panels = out_features / kInt4Outputs, groups = in_features / kInt4Group;
  Int4Weight stored{.blocks = at::empty({panels, groups, kInt4Block}, at::kByte),
                    .row_scales = at::empty({out_features}, at::kFloat),
                    .levels = levels};
  const auto stretch = static_cast<float>(int4_stretch(levels));
  auto* blocks = stored.blocks.mutable_data_ptr<std::uint8_t>();
  auto* row_scales = stored.row_scales.mutable_data_ptr<float>();
  run_pieces(panels, [&](std::int64_t i) {
    thread_local std::vector<CodedGroup> coded;
    coded.resize(static_cast<std::size_t>(kInt4Outputs * groups));
    fill(i, coded.data());
    std::uint8_t* panel = blocks + i * groups * kInt4Block;
    for (std::int64_t g = 0; g < groups; ++g) {
      pack_block(coded.data() + g, groups, panel + g * kInt4Block);
    }
    for (std::int64_t r = 0; r < kInt4Outputs; ++r) {
      row_scales[i * kInt4Outputs + r] = find_row_scale(panel, groups, r) / stretch;
    }
  });
  return stored;
}

Int4Weight quantize_int4(const at::Tensor& weight, const Int4Levels& levels) {
  TORCH_CHECK(weight.dim() == 2 && weight.is_cpu(), "quantize_int4: weight ", weight.sizes(),
              " on ", weight.device());
  const bool is_even = levels == kEvenLevels;
  TORCH_CHECK(is_even || levels == kNearLevels, "no rule for scales of these levels");
  const std::int64_t k = weight.size(1);
  return pack_int4(weight.size(0), k, levels, [&](std::int64_t i, CodedGroup* to) {
    const at::Tensor rows = weight.narrow(0, i * kInt4Outputs, kInt4Outputs);
    code_rows({wide_values(rows), kInt4Outputs, k}, is_even, to);
  });
}

void widen_int4(const Int4Weight& stored, std::int64_t first, std::int64_t count, float* to) {
  const std::int64_t k = stored.in_features();
  for (std::int64_t n = first; n < first + count; ++n, to += k) {
    const std::int64_t r = n % kInt4Outputs;
    const std::uint8_t* block = stored.panel(n / kInt4Outputs);
    for (std::int64_t begin = 0; begin < k; begin += kInt4Group, block += kInt4Block) {
      const float scale = scale_at(block, r);
      for (std::int64_t i = 0; i < kInt4Group / 2; ++i) {
        const std::uint8_t byte = block[i / 4 * 64 + r * 4 + i % 4];
        float* pair = to + begin + i / 4 * 8 + i % 4;
        pair[0] = scale * static_cast<float>(stored.levels[byte & 15]);
        pair[4] = scale * static_cast<float>(stored.levels[byte >> 4]);
      }
    }
  }
}

at::Tensor dequantize_int4(const Int4Weight& stored) {
  const std::int64_t k = stored.in_features();
  const at::Tensor values = at::empty({stored.out_features(), k}, at::kFloat);
  run_pieces(stored.out_features() / kInt4Outputs, [&](std::int64_t i) {
    const std::int64_t first = i * kInt4Outputs;
    widen_int4(stored, first, kInt4Outputs, values.mutable_data_ptr<float>() + first * k);
  });
  return values;
}

}  // namespace vlm

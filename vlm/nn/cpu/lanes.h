// Vectors of 16 numbers: one register of the widest instruction set, two or four of the others
// (clones.h). Every function is inlined, so there is no calling convention for vectors to agree on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/clones.h"
#include "vlm/nn/cpu/gelu.h"

namespace vlm {

constexpr std::int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = std::int32_t __attribute__((vector_size(kLanes * sizeof(std::int32_t))));
using Words = std::uint32_t __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));
using Bytes = std::uint8_t __attribute__((vector_size(kLanes)));
using Halves = std::uint16_t __attribute__((vector_size(kLanes * sizeof(std::uint16_t))));

VLM_INLINE std::int64_t divide_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step;
}

VLM_INLINE std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return divide_up(value, step) * step;
}

constexpr int kSecondCache = 1;  // __builtin_prefetch's number for the second-level cache

// Numbers from the beginning of a line of the cache on: vectors and tiles that lie across two lines
// take twice as long to read, and longer to write.
template <typename Value>
struct LineAllocator {
  using value_type = Value;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <typename Other>
  LineAllocator(const LineAllocator<Other>& /*other*/) {}

  Value* allocate(std::size_t count) {
    return static_cast<Value*>(::operator new(count * sizeof(Value), kLine));
  }
  void deallocate(Value* memory, std::size_t /*count*/) { ::operator delete(memory, kLine); }
  bool operator==(const LineAllocator&) const = default;
};
template <typename Value>
using LineVector = std::vector<Value, LineAllocator<Value>>;

template <typename Lanes>
VLM_INLINE Lanes load_lanes(const void* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

// The lowest byte of each word. In two steps, as compilers make many instructions of one.
VLM_INLINE Bytes lowest_bytes(Words words) {
  return __builtin_convertvector(__builtin_convertvector(words, Halves), Bytes);
}

// The first `count` values at `from`, at most 16, then zeros; null: zeros.
VLM_INLINE Floats load_partial(const float* from, std::int64_t count) {
  if (!from) return Floats{};
  if (count >= kLanes) return load_lanes<Floats>(from);
  Floats values = {};
  std::memcpy(&values, from, static_cast<std::size_t>(count) * sizeof(float));
  return values;
}

// Stores the first `count` values, at most 16.
VLM_INLINE void store_partial(Floats values, float* to, std::int64_t count) {
  if (count >= kLanes) {
    std::memcpy(to, &values, sizeof values);
  } else {
    std::memcpy(to, &values, static_cast<std::size_t>(count) * sizeof(float));
  }
}

// The larger of two; where one is NaN, either may come out.
VLM_INLINE Floats larger(Floats a, Floats b) {
  return a > b ? a : b;
}

constexpr float kRound = 12582912.0F;  // 1.5 · 2²³: adding it leaves the integer in the low bits

constexpr float kLog2E = 1.44269504F;  // e^x = 2^(x · log₂ e)

// x ≤ 0 split into power = 2^n for the nearest integer n, and fraction = x - n, from -0.5 to 0.5
// (NaN for NaN). x below -126 counts as -126.
struct Exponent {
  Floats power;
  Floats fraction;
};

VLM_INLINE Exponent split_exponent(Floats x) {
  constexpr float kBiased = kRound + 127.0F;  // the integer as floats have it in their exponent
  const Floats least = Floats{} - 126.0F;
  x = x < least ? least : x;  // in this order NaN stays
  const Floats shifted = x + kBiased;
  return {(Floats)((Words)shifted << 23), x - (shifted - kBiased)};
}

// 2^x for x ≤ 0, within 3e-6 of it; 2^-126 below -126; NaN of NaN.
VLM_INLINE Floats fast_exp2(Floats x) {
  const auto [power, f] = split_exponent(x);
  const Floats polynomial =
      1.0F + f * (0.69314718F +
                  f * (0.24022651F + f * (0.05550411F + f * (0.00961813F + f * 0.00133336F))));
  return polynomial * power;
}

// The same within 2e-7.
VLM_INLINE Floats precise_exp2(Floats x) {
  const auto [power, f] = split_exponent(x);
  const Floats tail = 0.00133335581F + f * (0.000154035304F + f * 0.0000152527338F);
  const Floats polynomial =
      1.0F + f * (0.693147181F +
                  f * (0.240226507F + f * (0.0555041087F + f * (0.00961812911F + f * tail))));
  return polynomial * power;
}

// x / (1 + 2^-power), for a power of x's sign
VLM_INLINE Floats fast_sigmoid_product(Floats x, Floats power) {
  const Floats e = fast_exp2(power > 0.0F ? -power : power);
  return x * (power > 0.0F ? Floats{} + 1.0F : e) / (1.0F + e);
}

// x / (1 + e^-x)
VLM_INLINE Floats fast_silu(Floats x) {
  return fast_sigmoid_product(x, x * kLog2E);
}

// x Φ(x) by the error function as Abramowitz and Stegun approximate it (7.1.26), within 1.5e-7.
VLM_INLINE Floats fast_erf_gelu(Floats x) {
  const Floats z = 0.70710678F * (x > 0.0F ? x : -x);
  const Floats t = 1.0F / (1.0F + 0.3275911F * z);
  const Floats polynomial =
      t * (0.254829592F +
           t * (-0.284496736F + t * (1.421413741F + t * (-1.453152027F + t * 1.061405429F))));
  const Floats tail = 0.5F * polynomial * fast_exp2(-kLog2E * z * z);  // Φ(-|x|)
  return x * (x > 0.0F ? 1.0F - tail : tail);
}

template <Gelu Kind>
VLM_INLINE Floats fast_gelu(Floats x) {
  if constexpr (Kind == Gelu::kErf) return fast_erf_gelu(x);
  if constexpr (Kind == Gelu::kQuick) return fast_sigmoid_product(x, 1.702F * kLog2E * x);
  // With u = √(2/π) (x + 0.044715 x³): x (1 + tanh u) / 2 = x / (1 + exp(−2u)).
  constexpr float kScale = 2 * 0.79788456F * kLog2E;
  return fast_sigmoid_product(x, kScale * x * (1.0F + 0.044715F * x * x));
}

// One step of a transposition. The lanes of a whose index has the bit `Step` are exchanged with the
// lanes of b whose index hasn't, `Step` lanes lower.
template <int Step, typename Lanes, int... Lane>
VLM_INLINE void swap_lanes(Lanes& a, Lanes& b, std::integer_sequence<int, Lane...>) {
  constexpr int kAll = sizeof...(Lane);
  const Lanes from_both =
      __builtin_shufflevector(a, b, (Lane & Step ? kAll + Lane - Step : Lane)...);
  b = __builtin_shufflevector(a, b, (Lane & Step ? kAll + Lane : Lane + Step)...);
  a = from_both;
}

template <int Step, typename Lanes>
VLM_INLINE void transpose_step(Lanes (&rows)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & Step) continue;
    swap_lanes<Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, kLanes>());
  }
}

// Transposes a matrix of 16 × 16 in place.
template <typename Lanes>
VLM_INLINE void transpose_lanes(Lanes (&rows)[kLanes]) {
  transpose_step<1>(rows);
  transpose_step<2>(rows);
  transpose_step<4>(rows);
  transpose_step<8>(rows);
}

// Sums of lanes that are `Step` apart: those of a in lanes whose index hasn't the bit `Step`, those
// of b in the others.
template <int Step, typename Lanes>
VLM_INLINE Lanes add_halves(Lanes a, Lanes b) {
  swap_lanes<Step>(a, b, std::make_integer_sequence<int, kLanes>());
  return a + b;
}

template <int Step, typename Lanes, int... Row>
VLM_INLINE void add_second_half(Lanes* rows, std::integer_sequence<int, Row...>) {
  ((rows[Row] = add_halves<Step>(rows[Row], rows[Row + static_cast<int>(sizeof...(Row))])), ...);
}

// The sums over the lanes of `Count` vectors (a power of two up to 16): that of vector i in lane i
// * 16 / Count. Overwrites the vectors.
template <int Count, int Step = kLanes / 2, typename Lanes>
VLM_INLINE Lanes add_lanes(Lanes* rows) {
  if constexpr (Step == 0) {
    return rows[0];
  } else if constexpr (Count == 1) {
    rows[0] = add_halves<Step>(rows[0], rows[0]);
    return add_lanes<1, Step / 2>(rows);
  } else {
    add_second_half<Step>(rows, std::make_integer_sequence<int, Count / 2>());
    return add_lanes<Count / 2, Step / 2>(rows);
  }
}

template <typename Lanes, std::size_t Count>
VLM_INLINE Lanes add_lanes(Lanes (&rows)[Count]) {
  return add_lanes<static_cast<int>(Count)>(&rows[0]);
}

template <int Step>
VLM_INLINE Floats larger_halves(Floats values) {
  Floats others = values;
  swap_lanes<Step>(values, others, std::make_integer_sequence<int, kLanes>());
  return larger(values, others);
}

// The largest of the lanes; where one is NaN, any may come out.
VLM_INLINE float largest_lane(Floats values) {
  values = larger_halves<8>(values);
  values = larger_halves<4>(values);
  values = larger_halves<2>(values);
  return larger_halves<1>(values)[0];
}

// The 32 lanes of two vectors, sorted by even and odd index.
template <typename Lanes>
struct SplitPairs {
  Lanes evens, odds;
};

template <typename Lanes, int... Lane>
VLM_INLINE SplitPairs<Lanes> split_pairs(Lanes low, Lanes high,
                                         std::integer_sequence<int, Lane...>) {
  return {__builtin_shufflevector(low, high, 2 * Lane...),
          __builtin_shufflevector(low, high, 2 * Lane + 1 ...)};
}

template <typename Lanes>
VLM_INLINE SplitPairs<Lanes> split_pairs(Lanes low, Lanes high) {
  return split_pairs(low, high, std::make_integer_sequence<int, kLanes>());
}

// The nearest bfloat16, the even one of two that are equally near. NaNs as processors make them
// stay NaN.
VLM_INLINE std::uint16_t round_to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// The same for the bits of floats, two in a word: the earlier one in its lower half.
VLM_INLINE Words round_pairs(Words earlier, Words later) {
  earlier += 0x7FFF + ((earlier >> 16) & 1);
  later += 0x7FFF + ((later >> 16) & 1);
  return (earlier >> 16) | (later & 0xFFFF0000U);
}

}  // namespace vlm

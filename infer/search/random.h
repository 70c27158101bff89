// A counter-based random generator: the n-th number of a stream depends on seed, stream and n
// alone.
//
// So an answer's draws don't depend on other answers that are decoded at the same time. The mixing
// function is SplitMix64's (Steele, Lea, Flood 2014).
#pragma once

#include <cstdint>

namespace vlm::infer {

class CountedRandom {
 public:
  CountedRandom(std::uint64_t seed, std::uint64_t stream) : key_(mix(mix(seed) ^ stream)) {}

  // Uniform in (0, 1).
  double uniform() {
    const std::uint64_t bits = mix(key_ + ++count_ * 0x9e3779b97f4a7c15ULL);
    return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
  }

 private:
  static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  std::uint64_t key_;
  std::uint64_t count_ = 0;
};

}  // namespace vlm::infer

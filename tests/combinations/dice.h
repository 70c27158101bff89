// The source of every random choice of a draw: the same seed makes the same draw, with any compiler
// and standard library.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace vlm {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}

  // 0 … count − 1. Distributions of the standard library differ from one to the next.
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(random_() % count); }
  int between(int least, int most) {
    return least + static_cast<int>(below(static_cast<std::size_t>(most - least + 1)));
  }
  bool chance(double share) {
    return static_cast<double>(below(1 << 20)) < share * static_cast<double>(1 << 20);
  }

  template <typename T>
  T pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }
  std::string pick(std::initializer_list<const char*> from) {
    return *(from.begin() + static_cast<std::ptrdiff_t>(below(from.size())));
  }
  // Each with the chance `share`, in their order.
  std::vector<std::string> some(const std::vector<std::string>& from, double share = 0.4) {
    std::vector<std::string> taken;
    for (const std::string& each : from) {
      if (chance(share)) taken.push_back(each);
    }
    return taken;
  }
  template <typename T>
  void shuffle(std::vector<T>& list) {
    for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[below(i)]);
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace vlm

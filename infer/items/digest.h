// Bytes → a 64-bit digest that tells two contents apart. Fast (8 bytes a step), the same on every
// run; made against accidents, not against malice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vlm::infer {

class Digest {
 public:
  // Pieces are told apart: add("ab"), add("c") differs from add("a"), add("bc").
  void add(std::string_view bytes);
  void add(std::uint64_t number);

  std::uint64_t value() const { return state_; }
  std::string hex() const;  // 16 digits

 private:
  std::uint64_t state_ = 0x8f1bbcdcca62c1d6ULL;
};

std::uint64_t digest_of(std::string_view bytes);

}  // namespace vlm::infer

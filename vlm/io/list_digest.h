// Pieces → one digest (XXH3) that tells two contents apart; made against accidents, not against
// malice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vlm/io/xxh3.h"

namespace vlm {

class ListDigest {
 public:
  // Pieces are told apart: add("ab"), add("c") differs from add("a"), add("bc").
  void add(std::string_view bytes) {
    add(static_cast<std::uint64_t>(bytes.size()));
    hash_.add(bytes.data(), bytes.size());
  }
  void add(std::uint64_t number) { hash_.add(&number, sizeof number); }

  std::uint64_t value() const { return hash_.value(); }
  std::string hex() const { return hash_.hex(); }  // 32 digits

 private:
  Xxh3 hash_;
};

inline std::uint64_t digest_of(std::string_view bytes) {
  return xxh3_64(bytes);
}

}  // namespace vlm

// Bytes that come piece by piece → XXH3-128, as 32 hex digits; whole texts → XXH3-64. For keys of
// caches and for noticing damage, not against people who forge content (tensor_digest.h).
#pragma once

#define XXH_INLINE_ALL  // the header holds the implementation; nothing is linked
#include <xxhash.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace vlm {

inline std::uint64_t xxh3_64(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

// Text and bytes into one hash. add_text adds a NUL byte after the text, so that the same
// characters cut in another place hash differently.
class Xxh3 {
 public:
  Xxh3() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }
  ~Xxh3() { XXH3_freeState(state_); }
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;

  void add(const void* data, std::size_t bytes) { XXH3_128bits_update(state_, data, bytes); }
  void add_text(std::string_view text) {
    add(text.data(), text.size());
    add("\0", 1);
  }
  std::uint64_t value() const { return XXH3_128bits_digest(state_).low64; }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_);
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                  static_cast<unsigned long long>(hash.low64));
    return text;
  }

 private:
  XXH3_state_t* state_;
};

}  // namespace vlm

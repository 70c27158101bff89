// PictureGolden arrays of tests/fixtures/pictures (scripts/make_picture_fixtures.py), and the noise
// they were made from.
#pragma once

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "vlm/core/json.h"
#include "vlm/image/image.h"

namespace vlm {

// Cases from name.json, whose arrays lie in name.bin.
class PictureGolden {
 public:
  explicit PictureGolden(const std::string& name)
      : cases_(load_json(fixture("pictures/" + name + ".json"))),
        bytes_(load_text(fixture("pictures/" + name + ".bin"))) {}

  const Json& cases() const& { return cases_; }
  const Json& cases() && = delete;  // a loop over a temporary would outlive it

  template <typename T>
  std::vector<T> values(const Json& golden_case) const {
    std::size_t count = 1;
    for (const Json& edge : golden_case["shape"]) count *= edge.get<std::size_t>();
    std::vector<T> out(count);
    std::memcpy(out.data(), bytes_.data() + golden_case["offset"].get<std::size_t>(),
                count * sizeof(T));
    return out;
  }

 private:
  Json cases_;
  std::string bytes_;
};

// The picture that the script's noise() makes from the same numbers.
inline Image noise(std::int64_t height, std::int64_t width, std::uint32_t seed) {
  Image image{height, width, std::vector<std::uint8_t>(height * width * 3)};
  for (std::uint32_t i = 0; i < image.pixels.size(); ++i) {
    std::uint32_t value = i * 2654435761U + seed * 40503U;
    value ^= value >> 15;
    image.pixels[i] = static_cast<std::uint8_t>((value * 2246822519U) >> 24);
  }
  return image;
}

}  // namespace vlm

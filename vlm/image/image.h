// A decoded picture: 8-bit RGB, row-major, three bytes a pixel. What data/media makes and vlm/image
// reads.
#pragma once

#include <cstdint>
#include <vector>

namespace vlm {

struct Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<std::uint8_t> pixels;  // [height, width, 3]
};

}  // namespace vlm

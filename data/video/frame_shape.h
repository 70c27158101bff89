// The size of a video's frame, and what it becomes where frames are scaled down while decoding.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace vlm::data {

struct FrameShape {
  std::int64_t width = 0;  // as shown
  std::int64_t height = 0;
};

// Scaled so that the longer side has at most `long_edge` pixels; 0: as it is.
inline FrameShape shrink(FrameShape shape, std::int64_t long_edge) {
  const std::int64_t longest = std::max(shape.width, shape.height);
  if (long_edge < 1 || longest <= long_edge) return shape;
  const double factor = static_cast<double>(long_edge) / static_cast<double>(longest);
  const auto scaled = [&](std::int64_t side) {
    return std::max<std::int64_t>(1, std::llround(static_cast<double>(side) * factor));
  };
  return {scaled(shape.width), scaled(shape.height)};
}

}  // namespace vlm::data

// Resized bytes → model input: rescale and normalise by table, interleaved → planar.
//
//   Image [H, W, 3] u8, a window of it ─► write_window ─► [3, side, side] f32
//
// A byte has 256 values, so the arithmetic of the config is done once for each value and channel,
// in the reference's precision and order; the pixels then take one pass of table look-ups.
#pragma once

#include <array>
#include <cstdint>

#include "vlm/image/image.h"

namespace vlm {

// [channel][byte] → model input.
using PixelTable = std::array<std::array<float, 256>, 3>;

// A square part of a picture, in pixels.
struct Window {
  std::int64_t top = 0;
  std::int64_t left = 0;
  std::int64_t side = 0;
};

// Writes the window, which must lie inside `image`, to out[3 · side · side].
void write_window(const Image& image, const Window& window, const PixelTable& table, float* out);

}  // namespace vlm

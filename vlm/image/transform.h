// Resized bytes → model input: rescale and normalise by table, interleaved → planar.
//
//   Image [H, W, 3] u8, a window of it ─► write_window ─► [3, side, side] f32
//
// A byte has 256 values, so the arithmetic of the config is done once for each value and channel,
// in the reference's precision and order; the pixels then take one pass of table look-ups.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "vlm/image/image.h"

namespace vlm {

// [channel][byte] → model input.
using PixelTable = std::array<std::array<float, 256>, 3>;

// What a config says of a byte's way to model input.
struct PixelScale {
  bool do_rescale = true;
  bool do_normalize = true;
  double rescale_factor = 1.0 / 255.0;
  std::vector<double> mean = {0.5, 0.5, 0.5};
  std::vector<double> std = {0.5, 0.5, 0.5};
};

// One step after the other, as the processors on Pillow do.
PixelTable make_table_in_steps(const PixelScale& scale);
// mean and std are scaled up to bytes first, in float32: so the processors on torchvision fuse the
// two steps.
PixelTable make_fused_table(const PixelScale& scale);

// A square part of a picture, in pixels.
struct Window {
  std::int64_t top = 0;
  std::int64_t left = 0;
  std::int64_t side = 0;
};

// Writes the window, which must lie inside `image`, to out[3 · side · side].
void write_window(const Image& image, const Window& window, const PixelTable& table, float* out);

}  // namespace vlm

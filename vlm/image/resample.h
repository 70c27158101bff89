// Pillow's resampling of 8-bit RGB, bit for bit.
//
//   Image [H, W, 3] u8 ─► resize ─► Image [h, w, 3] u8
//
// Two passes of weighted sums, one an axis, each rounded to 8 bits, with weights in fixed point
// (22 bits behind the point) as Pillow 13 computes them; one thread. No premultiplied alpha, no
// crop box, no reducing gap: the image processor uses none of them.
// Reference: PIL.Image.resize, Pillow 13.0.0.
#pragma once

#include <cstdint>

#include "vlm/image/image.h"

namespace vlm {

// Pillow's numbers, which the `resample` key of preprocessor_config.json holds.
enum class Filter : std::int64_t {
  kNearest = 0,
  kLanczos = 1,
  kBilinear = 2,
  kBicubic = 3,
  kBox = 4,
  kHamming = 5,
};

inline constexpr std::int64_t kFilterCount = 6;

// `image` resized to `height` × `width`, both at least 1 and at most 2^24 (Pillow holds an edge as
// a float). A resize to the current size is a copy.
Image resize(const Image& image, std::int64_t height, std::int64_t width, Filter filter);

}  // namespace vlm

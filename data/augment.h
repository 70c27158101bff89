// Random changes of a training picture: where it lies in its frame, and its colours. Off by
// default.
//
// The same seed gives the same change; the trainer seeds with run, epoch and sample, so that a
// resumed run sees what an uninterrupted one would. Amounts are relative to the sides, so that a
// picture changes alike at every size: processors call this behind their first resize where that
// makes it smaller (PictureChange). Empty corners take the colour of the nearest border pixel.
// Arithmetic is OpenCV's, whose last bit may differ between its versions.
#pragma once

#include <cstdint>

#include "vlm/core/config/fields.h"
#include "vlm/image/image.h"

namespace vlm::data {

struct AugmentConfig {
  bool horizontal_flip = false;  // mirror, half of the time
  bool quarter_turns = false;    // by 0, 90, 180 or 270 degrees
  double shift = 0;              // largest move, as a fraction of each side
  double scale = 0;              // zoom by a factor in [1 − scale, 1 + scale]
  double stretch = 0;            // wider and lower, or narrower and higher, by up to 1 + stretch
  double rotation = 0;           // largest angle, in degrees
  double brightness = 0;         // add up to ± brightness · 255 to every channel
  double contrast = 0;    // stretch around mid-grey by a factor in [1 − contrast, 1 + contrast]
  double saturation = 0;  // colours by a factor in [1 − saturation, 1 + saturation]
  double hue = 0;         // largest turn of the colours, as a fraction of their circle

  Fields fields();
  // Throws Error for values out of range.
  void check() const;
  bool is_off() const;
};

Image augment(Image image, const AugmentConfig& config, std::uint64_t seed);

}  // namespace vlm::data

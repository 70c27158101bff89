// Augmentation: random changes of a training picture's geometry and colours. Off by default.
//
// The same seed gives the same change. The trainer makes the seed from run, epoch and sample, so
// that a resumed run sees the same pictures as an uninterrupted one. Lengths are fractions of the
// sides, so that the change is the same at every size; processors apply it after their first resize
// if that makes the picture smaller (PictureChange). Pixels from outside get the colour of the
// nearest border pixel. OpenCV does the arithmetic; its versions may differ in the last bit.
#pragma once

#include <cstdint>

#include "vlm/core/config/fields.h"
#include "vlm/image/image.h"

namespace vlm::data {

struct AugmentConfig {
  bool horizontal_flip = false;  // mirrors with probability 0.5
  bool quarter_turns = false;    // turns by 0, 90, 180 or 270 degrees
  double shift = 0;              // largest shift, as a fraction of each side
  double scale = 0;              // zoom by a factor in [1 − scale, 1 + scale]
  double stretch = 0;            // changes width : height by a factor of up to 1 + stretch
  double rotation = 0;           // largest angle, in degrees
  double brightness = 0;         // adds up to ± brightness · 255 to every channel
  double contrast = 0;    // scales around mid-grey by a factor in [1 − contrast, 1 + contrast]
  double saturation = 0;  // scales colour by a factor in [1 − saturation, 1 + saturation]
  double hue = 0;         // largest turn of the hue, as a fraction of the colour circle

  Fields fields();
  // Throws Error for values out of range.
  void check() const;
  bool is_off() const;
};

Image augment(Image image, const AugmentConfig& config, std::uint64_t seed);

}  // namespace vlm::data

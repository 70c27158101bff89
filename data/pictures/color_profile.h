// Converts colours from a picture's own profile to sRGB, which models are trained on.
//
//   Image, ICC profile or primaries and transfer curve ─► to_srgb ─► Image
//
// Used for HEIC and AVIF: phones store Display P3, and Pillow's users of such files convert them.
// The exact formats (decoder.h) follow Pillow's convert("RGB"), which leaves profiles alone. A
// profile that can't be read is ignored; the picture itself may be good. Reference: Little CMS
// 2.14, perceptual intent; primaries as numbered in ITU-T H.273.
#pragma once

#include <string_view>

#include "vlm/image/image.h"

namespace vlm::data {

// Converts from an ICC profile. Does nothing for profiles that aren't for RGB.
void to_srgb(Image& image, std::string_view icc);

// x and y of H.273's colour primaries.
struct Primaries {
  double red[2], green[2], blue[2], white[2];
};

// Converts from primaries and H.273's number of a transfer curve. Does nothing for sRGB itself,
// unknown curves, and curves of high dynamic range.
void to_srgb(Image& image, const Primaries& primaries, int transfer);

}  // namespace vlm::data

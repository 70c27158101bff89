// The orientation that EXIF or XMP metadata asks for, and turning a picture by it.
//
//   metadata ─► 1-8 (1: nothing to do) ─► upright ─► Image as Pillow's exif_transpose gives it
//
// Metadata that can't be read counts as orientation 1, because the picture itself may be good.
// (Pillow refuses some of these.) Reference: EXIF 2.3 tag 274, PIL.ImageOps.exif_transpose and
// PIL.Image.getexif, Pillow 13.0.0.
#pragma once

#include <optional>
#include <string_view>

#include "vlm/image/image.h"

namespace vlm::data {

// The tag of an EXIF block, with or without "Exif\0\0" in front; nothing when it has no such tag.
std::optional<int> exif_orientation(std::string_view exif);

// The same of an XMP packet (RDF as text).
std::optional<int> xmp_orientation(std::string_view xmp);

// The orientation by EXIF or, if that has no such tag, by XMP. Always 1 to 8.
int find_orientation(std::string_view exif, std::string_view xmp);

// Flips and turns, 1 to 8; [H, W] becomes [W, H] from 5 on.
Image upright(Image image, int orientation);

}  // namespace vlm::data

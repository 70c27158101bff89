// The orientation that EXIF or XMP metadata asks for, and turning a picture by it.
//
//   metadata ─► 1-8 (1: nothing to do) ─► upright ─► Image as Pillow's exif_transpose gives it
//
// Metadata is read leniently: what can't be understood counts as orientation 1, as a broken
// note is no reason to refuse a good picture. (Pillow refuses some of these.)
// Reference: EXIF 2.3 tag 274, PIL.ImageOps.exif_transpose and PIL.Image.getexif, Pillow 13.0.0.
#pragma once

#include <optional>
#include <string_view>

#include "vlm/image/image.h"

namespace vlm::data {

// From an EXIF block, with or without its "Exif\0\0" in front; empty where it has no such tag.
std::optional<int> exif_orientation(std::string_view exif);

// From an XMP packet (RDF as text).
std::optional<int> xmp_orientation(std::string_view xmp);

// EXIF goes first, XMP counts where EXIF has no such tag. Always 1 to 8.
int find_orientation(std::string_view exif, std::string_view xmp);

// Flips and turns, 1 to 8; [H, W] becomes [W, H] from 5 on.
Image upright(Image image, int orientation);

}  // namespace vlm::data

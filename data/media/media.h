// Picture files → decoded RGB, as Pillow's exif_transpose followed by convert("RGB") gives them.
//
//   file ─► load_image ─► Image [H, W, 3] u8 ─► vlm/image
//
// PNG, JPEG (of an MPO the first picture), WebP, BMP, TIFF, GIF (first frame), HEIC, AVIF, JPEG
// 2000, PNM, Radiance, Sun raster and EXR, told apart by their first bytes, never by the file's
// name. A picture of more pixels than the bound is refused by its header, before anything is
// decoded; a truncated one is refused, not filled up with grey. docs/smolvlm.md says where decoders
// differ from Pillow's. data/pictures holds one decoder a format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "vlm/image/image.h"

namespace vlm::data {

struct MediaLimits {
  std::int64_t max_pixels = 178'956'970;  // Pillow refuses twice its warning limit of 89,478,485
  std::int64_t max_bytes = 1LL << 30;
};

// Throws Error naming the file and the reason: missing, empty, not a picture, truncated, too large.
Image load_image(const std::filesystem::path& path, const MediaLimits& limits = {});

// The same for bytes in memory; `where` names them in errors.
Image decode_image(std::string_view bytes, const std::string& where,
                   const MediaLimits& limits = {});

// True for bytes that begin as a picture of a known format does, decoded here or not.
bool is_picture_start(std::string_view bytes);

// True for names that end like a picture's (.png, .jpg, …), in either case.
bool has_image_suffix(const std::filesystem::path& path);

}  // namespace vlm::data

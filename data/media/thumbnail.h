// A picture → a data URI small enough to stand in a page.
//
//   Image [H, W, 3] u8 ─► scaled down to at most max_side ─► JPEG ─► "data:image/jpeg;base64,…"
#pragma once

#include <cstdint>
#include <string>

#include "vlm/image/image.h"

namespace vlm::data {

std::string make_thumbnail_uri(const Image& image, std::int64_t max_side);

}  // namespace vlm::data

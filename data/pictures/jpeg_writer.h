// A picture → the bytes of a JPEG file, for pages that show it.
#pragma once

#include <string>

#include "vlm/image/image.h"

namespace vlm::data {

// Baseline JPEG with 4:2:0 colour; `quality` is libjpeg's, 1 to 100. The picture has at least one
// pixel and no edge over 65,500. Throws Error when libjpeg refuses it.
std::string encode_jpeg(const Image& image, int quality = 85);

}  // namespace vlm::data

// An Image's pixels as an OpenCV matrix of 8-bit triples, without a copy. Red comes first; the
// functions used here don't depend on the order.
#pragma once

#include <opencv2/core.hpp>

#include "vlm/image/image.h"

namespace vlm::data {

inline cv::Mat view(Image& image) {
  return {static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC3,
          image.pixels.data()};
}

// For reading only.
inline cv::Mat view(const Image& image) {
  return view(const_cast<Image&>(image));
}

}  // namespace vlm::data

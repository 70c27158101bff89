#include "data/media/thumbnail.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "data/media/media_ref.h"
#include "data/opencv/image_view.h"
#include "data/pictures/jpeg_writer.h"

namespace vlm::data {

std::string make_thumbnail_uri(const Image& image, std::int64_t max_side) {
  const std::int64_t longest = std::max(image.height, image.width);
  const double factor = std::min(1.0, static_cast<double>(max_side) / static_cast<double>(longest));
  const auto scaled = [factor](std::int64_t edge) {
    return std::max<std::int64_t>(1, std::llround(static_cast<double>(edge) * factor));
  };
  Image small{.height = scaled(image.height), .width = scaled(image.width)};
  small.pixels.resize(static_cast<std::size_t>(small.height * small.width * 3));
  cv::Mat written = view(small);
  cv::resize(view(image), written, written.size(), 0, 0, cv::INTER_AREA);
  return "data:image/jpeg;base64," + encode_base64(encode_jpeg(small));
}

}  // namespace vlm::data

#include "data/thumbnail.h"

#include <algorithm>
#include <cmath>

#include "data/pictures/jpeg_writer.h"
#include "vlm/image/resample.h"

namespace vlm::data {
namespace {

std::string encode_base64(const std::string& bytes) {
  constexpr const char* kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t at) {
      return at < bytes.size() ? static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at]))
                               : 0U;
    };
    const std::uint32_t group = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    for (std::size_t digit = 0; digit < 4; ++digit) {
      const bool is_padding = i + digit > bytes.size();
      text += is_padding ? '=' : kDigits[group >> (18 - 6 * digit) & 63];
    }
  }
  return text;
}

}  // namespace

std::string make_thumbnail_uri(const Image& image, std::int64_t max_side) {
  const std::int64_t longest = std::max(image.height, image.width);
  const double factor = std::min(1.0, static_cast<double>(max_side) / static_cast<double>(longest));
  const auto scaled = [factor](std::int64_t edge) {
    return std::max<std::int64_t>(1, std::llround(static_cast<double>(edge) * factor));
  };
  const Image small = resize(image, scaled(image.height), scaled(image.width), Filter::kBilinear);
  return "data:image/jpeg;base64," + encode_base64(encode_jpeg(small));
}

}  // namespace vlm::data

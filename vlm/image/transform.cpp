#include "vlm/image/transform.h"

namespace vlm {

PixelTable make_table_in_steps(const PixelScale& scale) {
  PixelTable table;
  for (std::size_t channel = 0; channel < table.size(); ++channel) {
    const auto mean = static_cast<float>(scale.mean[channel]);
    const auto std = static_cast<float>(scale.std[channel]);
    for (std::size_t byte = 0; byte < 256; ++byte) {
      auto value = static_cast<float>(byte);
      if (scale.do_rescale) {
        value = static_cast<float>(static_cast<double>(byte) * scale.rescale_factor);
      }
      if (scale.do_normalize) value = (value - mean) / std;
      table[channel][byte] = value;
    }
  }
  return table;
}

PixelTable make_fused_table(const PixelScale& scale) {
  const auto up = static_cast<float>(1.0 / scale.rescale_factor);
  PixelTable table;
  for (std::size_t channel = 0; channel < table.size(); ++channel) {
    auto mean = static_cast<float>(scale.mean[channel]);
    auto std = static_cast<float>(scale.std[channel]);
    if (scale.do_rescale) {
      mean *= up;
      std *= up;
    }
    for (std::size_t byte = 0; byte < 256; ++byte) {
      auto value = static_cast<float>(byte);
      if (scale.do_normalize) {
        value = (value - mean) / std;
      } else if (scale.do_rescale) {
        value *= static_cast<float>(scale.rescale_factor);
      }
      table[channel][byte] = value;
    }
  }
  return table;
}

void write_window(const Image& image, const Window& window, const PixelTable& table, float* out) {
  const std::int64_t plane = window.side * window.side;
  for (std::int64_t y = 0; y < window.side; ++y) {
    const std::uint8_t* pixel =
        image.pixels.data() + ((window.top + y) * image.width + window.left) * 3;
    float* row = out + y * window.side;
    for (std::int64_t x = 0; x < window.side; ++x, pixel += 3) {
      row[x] = table[0][pixel[0]];
      row[x + plane] = table[1][pixel[1]];
      row[x + 2 * plane] = table[2][pixel[2]];
    }
  }
}

}  // namespace vlm

#include "vlm/image/transform.h"

namespace vlm {

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

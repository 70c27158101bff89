#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Uniform in [−1, 1) by our own arithmetic: std::uniform_real_distribution may differ between
// standard libraries.
double signed_unit(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * (2.0 / 9007199254740992.0) - 1.0;
}

// Where an output pixel comes from: an affine map about the centre.
struct Warp {
  double a = 1, b = 0, c = 0, d = 1;  // [x y] → [a·x + b·y, c·x + d·y]
  double dx = 0, dy = 0;              // then moved, in pixels
  bool is_identity() const { return a == 1 && b == 0 && c == 0 && d == 1 && dx == 0 && dy == 0; }
};

Warp draw_warp(const Image& image, const AugmentConfig& config, std::mt19937_64& random) {
  Warp warp;
  // Every draw is made whatever is on, so that options don't shift each other's randomness.
  const bool mirror = (random() & 1) != 0 && config.horizontal_flip;
  const int turns = config.quarter_turns ? static_cast<int>(random() & 3) : (random(), 0);
  const double zoom = 1.0 / (1.0 + config.scale * signed_unit(random));
  warp.dx = config.shift * signed_unit(random) * static_cast<double>(image.width);
  warp.dy = config.shift * signed_unit(random) * static_cast<double>(image.height);
  constexpr int kCos[] = {1, 0, -1, 0}, kSin[] = {0, 1, 0, -1};
  const double flip = mirror ? -zoom : zoom;
  warp.a = flip * kCos[turns];
  warp.b = -flip * kSin[turns];
  warp.c = zoom * kSin[turns];
  warp.d = zoom * kCos[turns];
  return warp;
}

// Bilinear sample with clamped coordinates.
void sample_pixel(const Image& image, double x, double y, std::uint8_t* out) {
  x = std::clamp(x, 0.0, static_cast<double>(image.width - 1));
  y = std::clamp(y, 0.0, static_cast<double>(image.height - 1));
  const auto x0 = static_cast<std::int64_t>(x), y0 = static_cast<std::int64_t>(y);
  const std::int64_t x1 = std::min(x0 + 1, image.width - 1),
                     y1 = std::min(y0 + 1, image.height - 1);
  const double fx = x - static_cast<double>(x0), fy = y - static_cast<double>(y0);
  const auto at = [&](std::int64_t row, std::int64_t col, int channel) {
    return static_cast<double>(
        image.pixels[static_cast<std::size_t>((row * image.width + col) * 3 + channel)]);
  };
  for (int channel = 0; channel < 3; ++channel) {
    const double top = at(y0, x0, channel) * (1 - fx) + at(y0, x1, channel) * fx;
    const double bottom = at(y1, x0, channel) * (1 - fx) + at(y1, x1, channel) * fx;
    out[channel] = static_cast<std::uint8_t>(std::lround(top * (1 - fy) + bottom * fy));
  }
}

Image apply_warp(const Image& image, const Warp& warp) {
  Image out{.height = image.height, .width = image.width};
  out.pixels.resize(image.pixels.size());
  const double cx = static_cast<double>(image.width - 1) / 2;
  const double cy = static_cast<double>(image.height - 1) / 2;
  // A quarter turn of an oblong picture is stretched back into its frame.
  const double aspect = warp.a == 0 && cx > 0 && cy > 0 ? cx / cy : 1.0;
  std::uint8_t* pixel = out.pixels.data();
  for (std::int64_t row = 0; row < image.height; ++row) {
    for (std::int64_t col = 0; col < image.width; ++col, pixel += 3) {
      const double x = static_cast<double>(col) - cx - warp.dx;
      const double y = static_cast<double>(row) - cy - warp.dy;
      sample_pixel(image, cx + warp.a * x + warp.b * y * aspect,
                   cy + warp.c * x / aspect + warp.d * y, pixel);
    }
  }
  return out;
}

void apply_tone(Image& image, double factor, double offset) {
  std::uint8_t table[256];
  for (int value = 0; value < 256; ++value) {
    const double toned = (value - 127.5) * factor + 127.5 + offset;
    table[value] = static_cast<std::uint8_t>(std::lround(std::clamp(toned, 0.0, 255.0)));
  }
  for (std::uint8_t& value : image.pixels) value = table[value];
}

}  // namespace

Fields AugmentConfig::fields() {
  return {{"horizontal_flip", &horizontal_flip, "Mirror half of the pictures"},
          {"quarter_turns", &quarter_turns, "Turn by 0, 90, 180 or 270 degrees"},
          {"shift", &shift, "Largest move as a fraction of each side"},
          {"scale", &scale, "Zoom by a factor in [1 - scale, 1 + scale]"},
          {"brightness", &brightness, "Add up to +- brightness * 255 to every channel"},
          {"contrast", &contrast, "Stretch by a factor in [1 - contrast, 1 + contrast]"}};
}

void AugmentConfig::check() const {
  const std::pair<const char*, double> values[] = {
      {"shift", shift}, {"scale", scale}, {"brightness", brightness}, {"contrast", contrast}};
  for (const auto& [name, value] : values) {
    if (value >= 0 && value < 1) continue;
    throw Error({.what = "value out of range",
                 .where = concat("augmentation.", name),
                 .got = concat(value),
                 .wanted = "0 to below 1"});
  }
}

bool AugmentConfig::is_off() const {
  return !horizontal_flip && !quarter_turns && shift == 0 && scale == 0 && brightness == 0 &&
         contrast == 0;
}

Image augment(const Image& image, const AugmentConfig& config, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const Warp warp = draw_warp(image, config, random);
  Image out = warp.is_identity() ? image : apply_warp(image, warp);
  const double factor = 1.0 + config.contrast * signed_unit(random);
  const double offset = 255.0 * config.brightness * signed_unit(random);
  if (factor != 1.0 || offset != 0.0) apply_tone(out, factor, offset);
  return out;
}

}  // namespace vlm::data

#include "data/augment.h"

#include <cmath>
#include <numbers>
#include <opencv2/imgproc.hpp>
#include <random>
#include <utility>

#include "data/opencv/image_view.h"
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
  bool swaps_sides = false;           // a quarter turn
  bool is_identity() const { return a == 1 && b == 0 && c == 0 && d == 1 && dx == 0 && dy == 0; }
};

// Chroma is scaled and turned, luminance stays. Source: the YIQ axes of NTSC.
cv::Matx33f make_color_matrix(double saturation, double hue) {
  const cv::Matx33d to_yiq(0.299, 0.587, 0.114, 0.5959, -0.2746, -0.3213, 0.2115, -0.5227, 0.3112);
  const cv::Matx33d from_yiq(1, 0.956, 0.619, 1, -0.272, -0.647, 1, -1.106, 1.703);
  const double angle = 2 * std::numbers::pi * hue;
  const double cos = saturation * std::cos(angle), sin = saturation * std::sin(angle);
  return from_yiq * cv::Matx33d(1, 0, 0, 0, cos, -sin, 0, sin, cos) * to_yiq;
}

// All that is drawn for one picture.
struct Change {
  Warp warp;
  double contrast = 1, brightness = 0;  // factor, offset
  double saturation = 1, hue = 0;       // factor, turn
};

// Every draw is made whatever is on, so that options don't shift each other's randomness.
Change draw_change(const Image& image, const AugmentConfig& config, std::mt19937_64& random) {
  Change change;
  Warp& warp = change.warp;
  const bool mirror = (random() & 1) != 0 && config.horizontal_flip;
  const int turns = config.quarter_turns ? static_cast<int>(random() & 3) : (random(), 0);
  const double zoom = 1.0 / (1.0 + config.scale * signed_unit(random));
  warp.dx = config.shift * signed_unit(random) * static_cast<double>(image.width);
  warp.dy = config.shift * signed_unit(random) * static_cast<double>(image.height);
  change.contrast = 1.0 + config.contrast * signed_unit(random);
  change.brightness = 255.0 * config.brightness * signed_unit(random);
  const double angle = config.rotation * signed_unit(random) * std::numbers::pi / 180;
  const double stretch = std::pow(1.0 + config.stretch, signed_unit(random) / 2);
  change.saturation = 1.0 + config.saturation * signed_unit(random);
  change.hue = config.hue * signed_unit(random);

  constexpr int kCos[] = {1, 0, -1, 0}, kSin[] = {0, 1, 0, -1};
  warp.swaps_sides = turns % 2 != 0;
  const double cos = std::cos(angle), sin = std::sin(angle);
  const double across = (mirror ? -zoom : zoom) / stretch, down = zoom * stretch;
  warp.a = across * (kCos[turns] * cos - kSin[turns] * sin);
  warp.b = -across * (kSin[turns] * cos + kCos[turns] * sin);
  warp.c = down * (kSin[turns] * cos + kCos[turns] * sin);
  warp.d = down * (kCos[turns] * cos - kSin[turns] * sin);
  return change;
}

// Bilinear; what lies outside has the colour of the nearest border pixel.
Image apply_warp(Image& image, const Warp& warp) {
  Image out{.height = image.height, .width = image.width};
  out.pixels.resize(image.pixels.size());
  const double cx = static_cast<double>(image.width - 1) / 2;
  const double cy = static_cast<double>(image.height - 1) / 2;
  // A quarter turn of an oblong picture is stretched back into its frame.
  const double aspect = warp.swaps_sides && cx > 0 && cy > 0 ? cx / cy : 1.0;
  const double b = warp.b * aspect, c = warp.c / aspect;
  const double x = cx + warp.dx, y = cy + warp.dy;              // what the centre comes from
  const cv::Matx23d source(warp.a, b, cx - warp.a * x - b * y,  //
                           c, warp.d, cy - c * x - warp.d * y);
  cv::Mat written = view(out);
  cv::warpAffine(view(image), written, source, written.size(),
                 cv::INTER_LINEAR | cv::WARP_INVERSE_MAP, cv::BORDER_REPLICATE);
  return out;
}

void apply_tone(Image& image, double factor, double offset) {
  cv::Mat table(1, 256, CV_8U);
  for (int value = 0; value < 256; ++value) {
    table.at<std::uint8_t>(value) =
        cv::saturate_cast<std::uint8_t>((value - 127.5) * factor + 127.5 + offset);
  }
  cv::Mat pixels = view(image);
  cv::LUT(pixels, table, pixels);
}

void apply_colors(Image& image, const cv::Matx33f& matrix) {
  cv::Mat pixels = view(image);
  cv::transform(pixels, pixels, matrix);
}

}  // namespace

Fields AugmentConfig::fields() {
  return {{"horizontal_flip", &horizontal_flip, "Mirror half of the pictures"},
          {"quarter_turns", &quarter_turns, "Turn by 0, 90, 180 or 270 degrees"},
          {"shift", &shift, "Largest move as a fraction of each side"},
          {"scale", &scale, "Zoom by a factor in [1 - scale, 1 + scale]"},
          {"stretch", &stretch, "Change the ratio of the sides by a factor of up to 1 + stretch"},
          {"rotation", &rotation, "Largest angle in degrees"},
          {"brightness", &brightness, "Add up to +- brightness * 255 to every channel"},
          {"contrast", &contrast, "Stretch by a factor in [1 - contrast, 1 + contrast]"},
          {"saturation", &saturation,
           "Strengthen colours by a factor in [1 - saturation, 1 + saturation]"},
          {"hue", &hue, "Largest turn of the colours as a fraction of their circle"}};
}

void AugmentConfig::check() const {
  struct Bound {
    const char* name;
    double value, end;
  };
  const Bound bounds[] = {{"shift", shift, 1},           {"scale", scale, 1},
                          {"stretch", stretch, 1},       {"rotation", rotation, 180},
                          {"brightness", brightness, 1}, {"contrast", contrast, 1},
                          {"saturation", saturation, 1}, {"hue", hue, 0.5}};
  for (const Bound& bound : bounds) {
    if (bound.value >= 0 && bound.value < bound.end) continue;
    throw Error({.what = "value out of range",
                 .where = concat("augmentation.", bound.name),
                 .got = concat(bound.value),
                 .wanted = concat("0 to below ", bound.end)});
  }
}

bool AugmentConfig::is_off() const {
  return !horizontal_flip && !quarter_turns && shift == 0 && scale == 0 && stretch == 0 &&
         rotation == 0 && brightness == 0 && contrast == 0 && saturation == 0 && hue == 0;
}

Image augment(Image image, const AugmentConfig& config, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const Change change = draw_change(image, config, random);
  Image out = change.warp.is_identity() ? std::move(image) : apply_warp(image, change.warp);
  if (change.contrast != 1.0 || change.brightness != 0.0) {
    apply_tone(out, change.contrast, change.brightness);
  }
  if (change.saturation != 1.0 || change.hue != 0.0) {
    apply_colors(out, make_color_matrix(change.saturation, change.hue));
  }
  return out;
}

}  // namespace vlm::data

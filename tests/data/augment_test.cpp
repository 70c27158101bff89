// Random changes of a picture: exact where they can be, bounded where they are drawn.
#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/picture_golden.h"
#include "vlm/core/error.h"
#include "vlm/image/resample.h"

namespace vlm::data {
namespace {

using Bytes8 = std::vector<std::uint8_t>;

// The picture whose pixel (row, col) is the one of `image` that `source` names.
template <typename Source>
Bytes8 rearranged(const Image& image, const Source& source) {
  Bytes8 out;
  for (std::int64_t row = 0; row < image.height; ++row) {
    for (std::int64_t col = 0; col < image.width; ++col) {
      const auto [from_row, from_col] = source(row, col);
      const auto at = image.pixels.begin() + (from_row * image.width + from_col) * 3;
      out.insert(out.end(), at, at + 3);
    }
  }
  return out;
}

using Place = std::pair<std::int64_t, std::int64_t>;

Bytes8 mirrored(const Image& image) {
  return rearranged(image, [&](auto r, auto c) { return Place(r, image.width - 1 - c); });
}

// A dark picture with a soft bright dot at (row, col), far from the border.
Image dot_at(std::int64_t size, double row, double col) {
  Image image{size, size, Bytes8(static_cast<std::size_t>(size * size * 3))};
  for (std::int64_t i = 0; i < size * size * 3; ++i) {
    const std::int64_t pixel = i / 3;
    const std::int64_t at_row = pixel / size, at_col = pixel % size;
    const double y = double(at_row) - row, x = double(at_col) - col;
    image.pixels[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(std::lround(250 * std::exp(-(x * x + y * y) / 8)));
  }
  return image;
}

// Centre of brightness: row, column.
std::pair<double, double> centroid(const Image& image) {
  double sum = 0, row = 0, col = 0;
  for (std::int64_t i = 0; i < image.height * image.width; ++i) {
    const double value = image.pixels[static_cast<std::size_t>(i * 3)];
    sum += value;
    const std::int64_t at_row = i / image.width, at_col = i % image.width;
    row += value * double(at_row);
    col += value * double(at_col);
  }
  return {row / sum, col / sum};
}

TEST_CASE("without options a picture stays as it is") {
  const Image image = noise(7, 5, 1);
  CHECK(AugmentConfig{}.is_off());
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CHECK(augment(image, {}, seed).pixels == image.pixels);
  }
}

TEST_CASE("the same seed gives the same picture, another one another") {
  const Image image = noise(20, 30, 2);
  const AugmentConfig config = {.horizontal_flip = true,
                                .quarter_turns = true,
                                .shift = 0.3,
                                .scale = 0.3,
                                .stretch = 0.3,
                                .rotation = 30,
                                .brightness = 0.3,
                                .contrast = 0.3,
                                .saturation = 0.3,
                                .hue = 0.1};
  CHECK_FALSE(config.is_off());
  std::set<Bytes8> seen;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Image once = augment(image, config, seed);
    CHECK(once.height == 20);
    CHECK(once.width == 30);
    CHECK(once.pixels == augment(image, config, seed).pixels);
    seen.insert(once.pixels);
  }
  CHECK(seen.size() == 20);
}

TEST_CASE("a picture changes alike before and after it was made smaller") {
  Image large{240, 320, Bytes8(240 * 320 * 3)};
  for (std::size_t i = 0; i < large.pixels.size(); ++i) {
    const double x = double(i / 3 % 320) / 320, y = double(i / 3 / 320) / 240;
    large.pixels[i] =
        static_cast<std::uint8_t>(128 + 100 * std::sin(9 * x + 5 * y * double(i % 3)));
  }
  const AugmentConfig config = {.horizontal_flip = true,
                                .quarter_turns = true,
                                .shift = 0.1,
                                .scale = 0.2,
                                .rotation = 20,
                                .contrast = 0.2,
                                .hue = 0.1};
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    INFO(seed);
    const auto small = [](const Image& image) { return resize(image, 60, 80, Filter::kLanczos); };
    const Bytes8 late = augment(small(large), config, seed).pixels;
    const Bytes8 early = small(augment(large, config, seed)).pixels;
    double difference = 0;
    for (std::size_t i = 0; i < late.size(); ++i) difference += std::abs(late[i] - early[i]);
    CHECK(difference / double(late.size()) < 3);
    const Bytes8 other = augment(small(large), config, seed + 100).pixels;
    double between = 0;
    for (std::size_t i = 0; i < late.size(); ++i) between += std::abs(late[i] - other[i]);
    CHECK(between / double(late.size()) > 10);
  }
}

TEST_CASE("a mirror is exact and comes about half of the time, for odd and even sizes") {
  for (const std::int64_t width : {6, 7}) {
    const Image image = noise(5, width, 3);
    int flips = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      const Image out = augment(image, {.horizontal_flip = true}, seed);
      const bool flipped = out.pixels == mirrored(image);
      CHECK((flipped || out.pixels == image.pixels));
      flips += flipped;
    }
    CHECK(flips > 70);
    CHECK(flips < 130);
  }
}

TEST_CASE("quarter turns of a square picture are exact, and all four come") {
  for (const std::int64_t size : {6, 7}) {
    const Image image = noise(size, size, 4);
    const std::int64_t last = size - 1;
    const std::vector<Bytes8> turns = {
        image.pixels, rearranged(image, [&](auto r, auto c) { return Place(c, last - r); }),
        rearranged(image, [&](auto r, auto c) { return Place(last - r, last - c); }),
        rearranged(image, [&](auto r, auto c) { return Place(last - c, r); })};
    std::set<std::ptrdiff_t> seen;
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      const Image out = augment(image, {.quarter_turns = true}, seed);
      const auto turn = std::find(turns.begin(), turns.end(), out.pixels) - turns.begin();
      CHECK(turn < 4);
      seen.insert(turn);
    }
    CHECK(seen.size() == 4);
  }
}

TEST_CASE("a quarter turn of an oblong picture is stretched into its frame") {
  Image image{10, 30, {}};  // four fields of one grey each: 10 | 20 over 40 | 30
  for (std::int64_t i = 0; i < 300; ++i) {
    const bool lower = i / 30 >= 5, right = i % 30 >= 15;
    image.pixels.insert(image.pixels.end(), 3, lower ? (right ? 30 : 40) : (right ? 20 : 10));
  }
  std::set<std::vector<int>> seen;  // the corners, clockwise
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Image out = augment(image, {.quarter_turns = true}, seed);
    REQUIRE(out.pixels.size() == image.pixels.size());
    const auto grey = [&](std::int64_t row, std::int64_t col) {
      return int{out.pixels[static_cast<std::size_t>((row * 30 + col) * 3)]};
    };
    CHECK(grey(0, 12) == grey(3, 0));  // up to the middle, but for the blend there
    seen.insert({grey(0, 0), grey(0, 29), grey(9, 29), grey(9, 0)});
  }
  CHECK(seen == std::set<std::vector<int>>{
                    {10, 20, 30, 40}, {20, 30, 40, 10}, {30, 40, 10, 20}, {40, 10, 20, 30}});
}

TEST_CASE("a shift moves the content by up to its bound, and reaches near it") {
  const Image image = dot_at(64, 32, 32);
  double most_down = 0, most_right = 0, most_up = 0, most_left = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto [row, col] = centroid(augment(image, {.shift = 0.2}, seed));
    most_down = std::max(most_down, row - 32);
    most_up = std::max(most_up, 32 - row);
    most_right = std::max(most_right, col - 32);
    most_left = std::max(most_left, 32 - col);
  }
  for (const double most : {most_down, most_up, most_right, most_left}) {
    CHECK(most <= 0.2 * 64 + 0.1);  // 0.1: rounding to 8 bits
    CHECK(most > 0.15 * 64);
  }
}

TEST_CASE("a scale moves the content from and to the centre by up to its factor") {
  const Image image = dot_at(65, 32, 48);  // 16 right of the centre
  double nearest = 100, farthest = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto [row, col] = centroid(augment(image, {.scale = 0.25}, seed));
    CHECK(std::abs(row - 32) < 0.1);
    nearest = std::min(nearest, col - 32);
    farthest = std::max(farthest, col - 32);
  }
  CHECK(nearest >= 16 * 0.75 - 0.1);
  CHECK(nearest < 16 * 0.8);
  CHECK(farthest <= 16 * 1.25 + 0.1);
  CHECK(farthest > 16 * 1.2);
}

TEST_CASE("a rotation turns about the centre by up to its angle, both ways") {
  const Image image = dot_at(65, 32, 48);
  double least = 0, most = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto [row, col] = centroid(augment(image, {.rotation = 40}, seed));
    CHECK(std::hypot(row - 32, col - 32) == Approx(16).margin(0.1));
    const double degrees = std::atan2(row - 32, col - 32) * 180 / std::numbers::pi;
    least = std::min(least, degrees);
    most = std::max(most, degrees);
  }
  CHECK(least >= -40.5);
  CHECK(least < -35);
  CHECK(most <= 40.5);
  CHECK(most > 35);
}

TEST_CASE("a stretch changes the ratio of the sides, not the size") {
  const Image image = dot_at(65, 48, 48);  // 16 right of the centre and below it
  double widest = 1;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto [row, col] = centroid(augment(image, {.stretch = 0.5}, seed));
    CHECK((row - 32) * (col - 32) == Approx(256).epsilon(0.02));
    widest = std::max(widest, (col - 32) / (row - 32));
  }
  CHECK(widest <= 1.52);
  CHECK(widest > 1.4);
}

TEST_CASE("corners left empty take the border's colour") {
  Image image{8, 8, Bytes8(8 * 8 * 3, 200)};
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    CHECK(augment(image, {.shift = 0.9, .scale = 0.9}, seed).pixels == image.pixels);
  }
}

TEST_CASE("brightness and contrast stay in bounds and treat every pixel alike") {
  const Image grey{2, 2, Bytes8(12, 100)};
  int darkest = 255, brightest = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Image out = augment(grey, {.brightness = 0.2}, seed);
    CHECK(out.pixels == Bytes8(12, out.pixels[0]));
    darkest = std::min<int>(darkest, out.pixels[0]);
    brightest = std::max<int>(brightest, out.pixels[0]);
  }
  CHECK(darkest >= 49);
  CHECK(darkest < 60);
  CHECK(brightest <= 151);
  CHECK(brightest > 140);

  const Image ends{1, 2, {0, 0, 0, 255, 255, 255}};
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Bytes8 out = augment(ends, {.contrast = 0.4}, seed).pixels;
    CHECK(out[0] + out[3] == 255);  // about mid-grey
    CHECK(out[0] <= 51);            // 127.5 − 0.6 · 127.5
    const Bytes8 wild = augment(ends, {.brightness = 0.99, .contrast = 0.99}, seed).pixels;
    CHECK(wild[3] >= wild[0]);  // clamped, never wrapped around
  }
}

double luminance(const Bytes8& pixel) {
  return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
}

TEST_CASE("saturation and hue change colours, not grey and not luminance") {
  const Image grey{1, 1, {90, 90, 90}}, color{1, 1, {150, 100, 110}};
  int least = 255, most = 0;
  std::set<bool> greener;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    CHECK(augment(grey, {.saturation = 0.9, .hue = 0.4}, seed).pixels == grey.pixels);
    const Bytes8 strong = augment(color, {.saturation = 0.5}, seed).pixels;
    CHECK(std::abs(luminance(strong) - luminance(color.pixels)) < 1);
    const int spread = strong[0] - strong[1];  // 50 before
    least = std::min(least, spread);
    most = std::max(most, spread);
    const Bytes8 turned = augment(color, {.hue = 0.1}, seed).pixels;
    CHECK(std::abs(luminance(turned) - luminance(color.pixels)) < 1);
    greener.insert(turned[1] > turned[2]);  // towards yellow, or towards violet
  }
  CHECK(least >= 24);
  CHECK(least < 30);
  CHECK(most <= 76);
  CHECK(most > 70);
  CHECK(greener.size() == 2);
}

TEST_CASE("options out of range are refused, and read by name") {
  AugmentConfig config;
  read_fields(parse_json(R"({"horizontal_flip":true,"quarter_turns":true,"shift":0.1,
                             "scale":0.2,"stretch":0.5,"rotation":20.0,"brightness":0.3,
                             "contrast":0.4,"saturation":0.6,"hue":0.25})",
                         "c"),
              config.fields(), UnknownKeys::kRefuse, "c");
  CHECK_NOTHROW(config.check());
  CHECK(write_fields(config.fields()).dump() ==
        R"({"horizontal_flip":true,"quarter_turns":true,"shift":0.1,"scale":0.2,)"
        R"("stretch":0.5,"rotation":20.0,"brightness":0.3,"contrast":0.4,"saturation":0.6,)"
        R"("hue":0.25})");
  CHECK_THROWS_WITH(AugmentConfig{.shift = -0.1}.check(),
                    "augmentation.shift: value out of range: got -0.1, wanted 0 to below 1");
  CHECK_THROWS_WITH(AugmentConfig{.scale = 1}.check(),
                    "augmentation.scale: value out of range: got 1, wanted 0 to below 1");
  CHECK_THROWS_WITH(AugmentConfig{.brightness = 2}.check(),
                    "augmentation.brightness: value out of range: got 2, wanted 0 to below 1");
  CHECK_THROWS_WITH(AugmentConfig{.contrast = std::nan("")}.check(),
                    "augmentation.contrast: value out of range: got nan, wanted 0 to below 1");
  CHECK_THROWS_WITH(AugmentConfig{.stretch = 1}.check(),
                    "augmentation.stretch: value out of range: got 1, wanted 0 to below 1");
  CHECK_THROWS_WITH(AugmentConfig{.rotation = 180}.check(),
                    "augmentation.rotation: value out of range: got 180, wanted 0 to below 180");
  CHECK_THROWS_WITH(AugmentConfig{.saturation = -1}.check(),
                    "augmentation.saturation: value out of range: got -1, wanted 0 to below 1");
  CHECK_THROWS_WITH(AugmentConfig{.hue = 0.5}.check(),
                    "augmentation.hue: value out of range: got 0.5, wanted 0 to below 0.5");
}

}  // namespace
}  // namespace vlm::data

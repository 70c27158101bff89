#include "vlm/image/resample.h"

#include "tests/support/picture_golden.h"

namespace vlm {
namespace {

TEST_CASE("resize equals Pillow's, every filter and mix of growing and shrinking") {
  const PictureGolden golden("resample");
  REQUIRE(golden.cases().size() == 90);
  for (const Json& expected : golden.cases()) {
    INFO(expected.dump());
    const Image image =
        noise(expected["source"][0], expected["source"][1], expected["seed"].get<std::uint32_t>());
    const Image resized = resize(image, expected["shape"][0], expected["shape"][1],
                                 static_cast<Filter>(expected["filter"].get<std::int64_t>()));
    CHECK(resized.height == expected["shape"][0]);
    CHECK(resized.width == expected["shape"][1]);
    CHECK(resized.pixels == golden.values<std::uint8_t>(expected));
  }
}

TEST_CASE("a flat picture stays flat") {
  for (const std::uint8_t value : {0, 1, 127, 255}) {
    const Image flat{50, 70, std::vector<std::uint8_t>(50 * 70 * 3, value)};
    for (std::int64_t filter = 0; filter < kFilterCount; ++filter) {
      const Image resized = resize(flat, 33, 101, static_cast<Filter>(filter));
      CHECK(resized.pixels == std::vector<std::uint8_t>(33 * 101 * 3, value));
    }
  }
}

TEST_CASE("columns equal rows of the turned picture") {
  const Image row = noise(1, 60, 7);
  const Image column{60, 1, row.pixels};
  CHECK(resize(row, 1, 23, Filter::kLanczos).pixels ==
        resize(column, 23, 1, Filter::kLanczos).pixels);
}

// Kept weights would need eight times the memory of the picture itself.
TEST_CASE("a picture one row high may be very wide") {
  const Image line{1, 3'000'000, std::vector<std::uint8_t>(9'000'000, 90)};
  for (const int value : resize(line, 1, 7, Filter::kLanczos).pixels) {
    CHECK(value >= 89);  // so tiny are the weights that their rounding shows, as in Pillow
    CHECK(value <= 91);
  }
}

}  // namespace
}  // namespace vlm

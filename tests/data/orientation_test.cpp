#include "data/pictures/orientation.h"

#include <string>

#include "tests/support/catch.h"

namespace vlm::data {
namespace {

using namespace std::string_literals;

// An EXIF block of one entry; `value` is its last four bytes.
std::string little_endian(const std::string& type, const std::string& value) {
  return "II*\0\x08\0\0\0\1\0\x12\1"s + type + "\0\1\0\0\0"s + value + "\0\0\0\0"s;
}

TEST_CASE("orientation is read from EXIF") {
  CHECK(exif_orientation(little_endian("\3", "\6\0\0\0"s)) == 6);
  CHECK(exif_orientation(little_endian("\4", "\5\0\0\0"s)) == 5);
  CHECK(exif_orientation("Exif\0\0"s + little_endian("\3", "\7\0\0\0"s)) == 7);
  CHECK(exif_orientation("MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x08\0\0\0\0\0\0"s) == 8);
  const std::string after_another =
      "II*\0\x08\0\0\0\2\0\x0f\1\2\0\1\0\0\0A\0\0\0"
      "\x12\1\3\0\1\0\0\0\3\0\0\0\0\0\0\0"s;
  CHECK(exif_orientation(after_another) == 3);
}

TEST_CASE("broken EXIF counts as none") {
  const std::string good = little_endian("\3", "\6\0\0\0"s);
  CHECK_FALSE(exif_orientation(""));
  CHECK_FALSE(exif_orientation("Exif\0\0"s));
  CHECK_FALSE(exif_orientation("XX*\0\x08\0\0\0"s));
  CHECK_FALSE(exif_orientation(little_endian("\2", "\6\0\0\0"s)));
  for (std::size_t size = 0; size < 20; ++size) CHECK_FALSE(exif_orientation(good.substr(0, size)));
  CHECK_FALSE(exif_orientation("II*\0\xff\xff\xff\xff"s + good));
}

TEST_CASE("orientation is read from XMP, in both of its spellings") {
  CHECK(xmp_orientation("<a tiff:Orientation=\"6\"/>") == 6);
  CHECK(xmp_orientation("<tiff:Orientation>8</tiff:Orientation>") == 8);
  CHECK(xmp_orientation("tiff:Orientation tiff:Orientation=\"2\"") == 2);
  CHECK_FALSE(xmp_orientation("<a tiff:Orientation=\"\"/>"));
  CHECK_FALSE(xmp_orientation("tiff:Orientation"));
  CHECK_FALSE(xmp_orientation(""));
}

TEST_CASE("EXIF goes before XMP, and values out of range mean nothing to do") {
  const std::string xmp = "tiff:Orientation=\"6\"";
  CHECK(find_orientation(little_endian("\3", "\3\0\0\0"s), xmp) == 3);
  CHECK(find_orientation("", xmp) == 6);
  CHECK(find_orientation("", "") == 1);
  CHECK(find_orientation(little_endian("\3", "\x09\0\0\0"s), xmp) == 1);
  CHECK(find_orientation(little_endian("\3", "\0\0\0\0"s), xmp) == 1);
}

// 2 × 3 pixels, numbered in reading order.
TEST_CASE("pictures are turned as EXIF says") {
  const auto turned = [](int orientation) {
    Image image{2, 3, {}};
    for (std::uint8_t i = 0; i < 6; ++i) image.pixels.insert(image.pixels.end(), {i, i, i});
    const Image out = upright(image, orientation);
    std::string text = std::to_string(out.height) + "x" + std::to_string(out.width) + " ";
    for (std::size_t i = 0; i < out.pixels.size(); i += 3) text += std::to_string(out.pixels[i]);
    return text;
  };
  CHECK(turned(1) == "2x3 012345");
  CHECK(turned(2) == "2x3 210543");
  CHECK(turned(3) == "2x3 543210");
  CHECK(turned(4) == "2x3 345012");
  CHECK(turned(5) == "3x2 031425");
  CHECK(turned(6) == "3x2 304152");
  CHECK(turned(7) == "3x2 524130");
  CHECK(turned(8) == "3x2 251403");
}

}  // namespace
}  // namespace vlm::data

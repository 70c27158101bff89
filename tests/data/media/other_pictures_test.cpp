// Formats beside the common ones: Netpbm and Sun raster, and what OpenCV reads.
#include <stdlib.h>

#include <filesystem>

#include "data/media/media.h"
#include "tests/support/picture_golden.h"
#include "tests/support/printed_text.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

constexpr auto kExr = "OPENCV_IO_ENABLE_OPENEXR";

std::string other_bytes(const std::string& name) {
  return load_text(fixture("pictures/other/" + name));
}

std::string other_error(const std::string& bytes, const MediaLimits& limits = {}) {
  try {
    decode_image(bytes, "p", limits);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string replaced(std::string text, const std::string& old, const std::string& with) {
  const auto at = text.find(old);
  REQUIRE(at != text.npos);
  return text.replace(at, old.size(), with);
}

TEST_CASE("pictures beside the common formats equal Pillow's, or what was written") {
  ::setenv(kExr, "1", 1);
  const PictureGolden golden("other/other");
  REQUIRE(golden.cases().size() == 56);
  for (const Json& expected : golden.cases()) {
    const auto name = expected["file"].get<std::string>();
    INFO(name);
    const Image image = decode_image(other_bytes(name), "p");
    CHECK(image.height == expected["shape"][0]);
    CHECK(image.width == expected["shape"][1]);
    CHECK(image.pixels == golden.values<std::uint8_t>(expected));
    CHECK(other_error(other_bytes(name), {.max_pixels = 13 * 19}).empty());
    CHECK(other_error(other_bytes(name), {.max_pixels = 13 * 19 - 1}) ==
          "p: picture has too many pixels: got 19 × 13, wanted at most 246");
  }
  ::unsetenv(kExr);
}

TEST_CASE("every shorter file is refused, for formats beside the common ones") {
  ::setenv(kExr, "1", 1);
  const PictureGolden golden("other/other");
  for (const Json& expected : golden.cases()) {
    const auto name = expected["file"].get<std::string>();
    const std::string bytes = other_bytes(name);
    const bool is_plain =
        name.starts_with("P1") || name.starts_with("P2") || name.starts_with("P3");
    // The last number's digits may be missing, and all that follows a first picture.
    const bool is_first = name.starts_with("animated") || name.starts_with("two");
    const std::size_t end = bytes.size() - (is_plain ? 7 : is_first ? bytes.size() * 2 / 3 : 0);
    for (std::size_t size = 0; size < end; size += 1 + end / 300) {
      INFO(name << " " << size << " of " << bytes.size());
      CHECK_FALSE(other_error(bytes.substr(0, size)).empty());
    }
  }
  ::unsetenv(kExr);
}

TEST_CASE("headers that promise too much, and kinds that aren't read, are told before decoding") {
  const std::string too_many = "p: picture has too many pixels: got ";
  CHECK_THAT(other_error("P5 99999 99999 255 "), Contains(too_many + "99999 × 99999"));
  CHECK_THAT(other_error("P6 999999999 999999999 255 "), Contains(too_many));
  CHECK(other_error("P5 19 13 70000 ") == "p: corrupt PNM file: got 70000 as the largest value");
  CHECK(other_error("P5 19 -3 255 ") == "p: corrupt PNM file: got '-3' in place of a number");
  CHECK(other_error("P5 0 3 255 ") == "p: picture has no pixels: got 0 × 3");
  CHECK(other_error("P2 2 1 9 3 10 ") == "p: corrupt PNM file: got 10 over the largest value");
  CHECK(other_error(replaced(other_bytes("RGB.pam"), "TYPE RGB", "TYPE XYZ")) ==
        "p: unsupported kind of PAM: got 3 channels of type 'XYZ'");

  const std::string sun = other_bytes("L.ras");
  CHECK_THAT(other_error(std::string(sun).replace(4, 8, "\x7f\xff\xff\xff\x7f\xff\xff\xff")),
             Contains(too_many + "2147483647 × 2147483647"));
  CHECK(other_error(std::string(sun).replace(15, 1, "\4")) ==
        "p: unsupported kind of Sun raster: got 4 bits a pixel");
  CHECK(other_error(std::string(sun).replace(23, 1, "\5")) ==
        "p: unsupported kind of Sun raster: got type 5");

  CHECK_THAT(other_error(replaced(other_bytes("flat.hdr"), "-Y 13 +X 19", "-Y 99999 +X 99999")),
             Contains(too_many + "99999 × 99999"));
  CHECK(other_error(replaced(other_bytes("flat.hdr"), "-Y 13 +X 19", "+X 19 -Y 13")) ==
        "p: unsupported kind of Radiance: got order of pixels +X -Y");

  const std::string jp2 = other_bytes("RGB.jp2");
  const auto siz = jp2.find("\xff\x4f\xff\x51");
  CHECK_THAT(other_error(std::string(jp2).replace(siz + 8, 8, "\x7f\xff\xff\xff\x7f\xff\xff\xff")),
             Contains(too_many + "2147483647 × 2147483647"));
  CHECK(other_error(std::string(jp2).replace(siz + 41, 1, "\5")) ==
        "p: unsupported kind of JPEG 2000: got 5 components");
  CHECK(other_error(std::string(jp2).replace(siz + 42, 1, "\3")) ==
        "p: unsupported kind of JPEG 2000: got 4 bits a sample");
  CHECK(other_error(std::string(jp2).replace(siz + 42, 1, "\x87")) ==
        "p: unsupported kind of JPEG 2000: got signed samples");
  CHECK(other_error(std::string(jp2).replace(siz + 43, 1, "\2")) ==
        "p: unsupported kind of JPEG 2000: got components of different sizes");
  CHECK(other_error(std::string(jp2).replace(jp2.find("colr") + 10, 1, "\x12")) ==
        "p: unsupported kind of JPEG 2000: got colours as sYCC");
}

TEST_CASE("EXR is read only where OpenCV's variable says so") {
  ::unsetenv(kExr);
  CHECK(other_error(other_bytes("half.exr")) ==
        "p: EXR pictures are read only when that is asked for (OPENCV_IO_ENABLE_OPENEXR=1 does it; "
        "OpenCV's reader isn't safe with files of strangers)");
  CHECK(other_error(other_bytes("half.exr"), {.max_pixels = 9}) ==
        "p: picture has too many pixels: got 19 × 13, wanted at most 9");
}

// What OpenCV says goes to its errors, not to the streams.
TEST_CASE("damaged files beside the common formats end in errors, and nothing is printed") {
  PrintedText printed;
  int failures = 0;
  const PictureGolden golden("other/other");
  for (const Json& expected : golden.cases()) {
    std::string bytes = other_bytes(expected["file"].get<std::string>());
    for (std::size_t at = 12; at < bytes.size(); at += 29) {
      bytes[at] ^= 0x44;
      failures += !other_error(bytes, {.max_pixels = 10'000}).empty();
    }
  }
  CHECK(printed.finish().empty());
  CHECK(failures > 100);
}

}  // namespace
}  // namespace vlm::data

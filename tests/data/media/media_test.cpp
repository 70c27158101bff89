#include "data/media/media.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/support/picture_golden.h"
#include "tests/support/printed_text.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

fs::path picture_file(const std::string& name) {
  return fixture("pictures/files/" + name);
}

std::string bytes_of(const std::string& name) {
  return load_text(picture_file(name));
}

// What a decoding attempt says when it fails, or "" when it does not.
std::string media_error(const std::string& bytes, const MediaLimits& limits = {}) {
  try {
    decode_image(bytes, "p", limits);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string patched(std::string bytes, std::size_t at, const std::string& with) {
  return bytes.replace(at, with.size(), with);
}

TEST_CASE("pictures of every format and kind equal Pillow's") {
  const PictureGolden golden("decode");
  REQUIRE(golden.cases().size() == 125);
  for (const Json& expected : golden.cases()) {
    const auto name = expected["file"].get<std::string>();
    INFO(name);
    const Image image = load_image(picture_file(name));
    CHECK(image.height == expected["shape"][0]);
    CHECK(image.width == expected["shape"][1]);
    CHECK(image.pixels == golden.values<std::uint8_t>(expected));
  }
}

// HEIC is lossless here, so the values are; AV1 and the profile's arithmetic round.
TEST_CASE("HEIC and AVIF are upright, in sRGB, and bounded before they are decoded") {
  const Json cases = load_json(fixture("pictures/heif/heif.json"));
  const std::string values = load_text(fixture("pictures/heif/heif.bin"));
  REQUIRE(cases.size() == 7);
  for (const Json& expected : cases) {
    const auto name = expected["file"].get<std::string>();
    INFO(name);
    const std::string bytes = load_text(fixture("pictures/heif/" + name));
    const Image image = decode_image(bytes, "p");
    REQUIRE(image.height == expected["shape"][0]);
    REQUIRE(image.width == expected["shape"][1]);
    int largest = 0;
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
      const auto wanted =
          static_cast<unsigned char>(values[expected["offset"].get<std::size_t>() + i]);
      largest = std::max(largest, std::abs(int(image.pixels[i]) - int(wanted)));
    }
    CHECK(largest <= (name == "p3.heic" || name.starts_with("lossy") ? 2 : 0));
    CHECK(media_error(bytes, {.max_pixels = 24 * 36}).empty());
    CHECK_THAT(media_error(bytes, {.max_pixels = 24 * 36 - 1}), Contains("too many pixels"));
    for (std::size_t size = 16; size < bytes.size(); size += 53) {
      CHECK_THAT(media_error(bytes.substr(0, size)), Contains("HEIF"));
    }
  }
}

TEST_CASE("the bound on pixels is exact, for every format and kind") {
  const PictureGolden golden("decode");
  for (const Json& expected : golden.cases()) {
    const auto name = expected["file"].get<std::string>();
    INFO(name);
    const auto pixels =
        expected["shape"][0].get<std::int64_t>() * expected["shape"][1].get<std::int64_t>();
    const std::string bytes = bytes_of(name);
    CHECK(media_error(bytes, {.max_pixels = pixels}).empty());
    CHECK_THAT(media_error(bytes, {.max_pixels = pixels - 1}),
               Contains("p: picture has too many pixels: got "));
  }
}

TEST_CASE("a header that promises too much is refused at once") {
  const std::string big("\xff\xff", 2);
  CHECK(media_error(patched(bytes_of("1.gif"), 6, big + big)) ==
        "p: picture has too many pixels: got 65535 × 65535, wanted at most 178956970");
  CHECK(media_error(patched(bytes_of("RGB.bmp"), 18, std::string("\0\0\1\0\0\0\1\0", 8))) ==
        "p: picture has too many pixels: got 65536 × 65536, wanted at most 178956970");
  // IHDR is followed by a checksum; its place is known, as the picture is our own.
  const std::string ihdr("IHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0\xe3\xe6\xa7\xb4", 21);
  CHECK(media_error(patched(bytes_of("RGB.png"), 12, ihdr)) ==
        "p: picture has too many pixels: got 65536 × 65536, wanted at most 178956970");
  const std::string jpeg = bytes_of("RGB_420.jpg");
  const auto frame = jpeg.find("\xff\xc0");
  CHECK(media_error(patched(jpeg, frame + 5, std::string("\xff\x00\xff\x00", 4))) ==
        "p: picture has too many pixels: got 65280 × 65280, wanted at most 178956970");
}

TEST_CASE("memory and work are bounded by the file and the bound on pixels") {
  // A chunk that promises 1.9 GB; libpng would allocate them.
  const std::string png = bytes_of("RGB.png");
  const std::string chunk("\x6f\x6f\x6f\x52zTXtRaw", 11);
  CHECK(media_error(std::string(png).insert(png.find("IDAT") - 4, chunk)) ==
        "p: truncated PNG file");
  // One column of pixels, each row in a tile of a million columns.
  std::string tiff = bytes_of("RGB_tiles_big_endian.tiff");
  const auto set = [&](const std::string& tag, const std::string& value) {
    const auto entry = tiff.find(tag);
    REQUIRE(entry != tiff.npos);
    tiff = patched(tiff, entry + 2, std::string("\0\4\0\0\0\1", 6) + value);
  };
  set(std::string("\1\0\0", 3), std::string("\0\0\0\1", 4));
  set(std::string("\1\1\0", 3), std::string("\0\1\0\0", 4));
  set(std::string("\1\x42\0", 3), std::string("\0\1\0\0", 4));
  set(std::string("\1\x43\0", 3), std::string("\0\0\0\x10", 4));
  const std::string error = media_error(tiff);
  const bool is_refused_by_libtiff = error == "p: corrupt TIFF file: got no directory";  // 4.5.1
  CHECK((is_refused_by_libtiff ||
         error == "p: corrupt TIFF file: got tiles of 65536 × 16 for 1 × 65536 pixels"));
}

TEST_CASE("truncated files are refused") {
  const PictureGolden golden("decode");
  for (const Json& expected : golden.cases()) {
    const auto name = expected["file"].get<std::string>();
    if (name == "two_pages.tiff" || name == "animated.gif") continue;  // the first comes early
    INFO(name);
    const std::string bytes = bytes_of(name);
    for (const std::size_t tenths : {1, 3, 5, 7}) {
      INFO(tenths << " tenths of " << bytes.size() << " bytes");
      CHECK_FALSE(media_error(bytes.substr(0, bytes.size() * tenths / 10)).empty());
    }
  }
}

TEST_CASE("errors of truncated files say so") {
  const auto half = [](const std::string& name) {
    const std::string bytes = bytes_of(name);
    return media_error(bytes.substr(0, bytes.size() * 3 / 4));
  };
  CHECK(half("RGB.png") == "p: truncated PNG file");
  CHECK(half("RGB_exif_behind.png") == "p: truncated PNG file");
  CHECK(half("RGB_420.jpg") == "p: truncated JPEG file");
  CHECK(half("RGB_progressive.jpg") == "p: truncated JPEG file");
  CHECK(half("RGB.webp") == "p: truncated WebP file");
  CHECK(half("RGB.bmp") == "p: truncated BMP file");
  CHECK(half("runs8.bmp") == "p: truncated BMP file");
  CHECK(half("RGB.tiff") == "p: truncated TIFF file");
  CHECK(half("P.gif") == "p: truncated GIF file");
  // Only the end marker of a JPEG is missing, and with it the certainty that all was there.
  const std::string jpeg = bytes_of("RGB_420.jpg");
  CHECK(media_error(jpeg.substr(0, jpeg.size() - 2)) == "p: truncated JPEG file");
}

TEST_CASE("errors of damaged files say what was found") {
  std::string png = bytes_of("RGB.png");
  png[png.find("IDAT") + 20] ^= 0x55;
  CHECK_THAT(media_error(png), Contains("p: corrupt PNG file: got "));
  const std::string gif = bytes_of("P.gif");
  CHECK(media_error(gif.substr(0, gif.find(',')) + ";") == "p: corrupt GIF file: got no frame");
  const std::string jpeg = bytes_of("RGB_420.jpg");
  CHECK(media_error(patched(jpeg, jpeg.find("\xff\xc4") + 5, std::string(16, '\xff'))) ==
        "p: corrupt JPEG file: got Bogus Huffman table definition");
  const std::string webp = bytes_of("RGB.webp");
  CHECK(media_error(patched(webp, webp.find("VP8 ") + 11, "abc")) ==
        "p: corrupt WebP file: got chunks that don't fit together");
  const std::string lossless = bytes_of("RGB_lossless.webp");
  CHECK(media_error(patched(lossless, lossless.find("VP8L") + 13, std::string(60, '\xff'))) ==
        "p: corrupt WebP file: got pixels that can't be decoded");
  const std::string animated = bytes_of("animated.webp");
  CHECK(media_error(patched(animated, animated.find("VP8L") + 13, std::string(60, '\xff'))) ==
        "p: corrupt WebP file: got pixels that can't be decoded");
  CHECK(media_error(patched(bytes_of("RGB.tiff"), 4, std::string("\0\0\0\0", 4))) ==
        "p: corrupt TIFF file: got no directory");
}

TEST_CASE("a JPEG of endless passes is refused") {
  const std::string jpeg = bytes_of("RGB_progressive.jpg");
  const auto scan = jpeg.rfind("\xff\xda");
  const std::string last = jpeg.substr(scan, jpeg.size() - 2 - scan);
  std::string bytes = jpeg.substr(0, scan);
  for (int i = 0; i < 600; ++i) bytes += last;
  CHECK(media_error(bytes + "\xff\xd9") == "p: corrupt JPEG file: got more than 500 scans");
}

TEST_CASE("unsupported kinds are named") {
  const std::string bmp = bytes_of("RGB.bmp");
  CHECK(media_error(patched(bmp, 28, std::string("\2\0", 2))) ==
        "p: unsupported kind of BMP: got 2 bits a pixel");
  CHECK(media_error(patched(bmp, 30, std::string("\5", 1))) ==
        "p: unsupported kind of BMP: got compression 5");
  CHECK(media_error(patched(bmp, 14, std::string("\x42", 1))) ==
        "p: unsupported kind of BMP: got a header of 66 bytes");
  CHECK(media_error(patched(bytes_of("RGB565_top_down.bmp"), 54, std::string("\1", 1))) ==
        "p: unsupported kind of BMP: got a layout of colour bits");
  CHECK(media_error(patched(bytes_of("runs8.bmp"), 28, std::string("\x10", 1))) ==
        "p: corrupt BMP file: got run lengths without a palette");
  std::string tiff = bytes_of("RGB16.tiff");
  const auto photometric = tiff.find(std::string("\x06\1\3\0\1\0\0\0\2", 9));  // tag 262
  REQUIRE(photometric != tiff.npos);
  CHECK(media_error(patched(tiff, photometric + 8, std::string("\x08", 1))) ==
        "p: unsupported kind of TIFF: got photometric interpretation 8 with 3 samples of 16 bits, "
        "format 1");
  const auto compression = tiff.find(std::string("\3\1\3\0\1\0\0\0\1", 9));  // tag 259
  REQUIRE(compression != tiff.npos);
  CHECK(media_error(patched(tiff, compression + 8, std::string("\x63", 1))) ==
        "p: unsupported kind of TIFF: got compression 99");
}

TEST_CASE("what is no picture is told from what is no supported picture") {
  const std::string wanted =
      "wanted PNG, JPEG, WebP, BMP, TIFF, GIF, HEIC, AVIF, JPEG 2000, PNM, Radiance, Sun raster or "
      "EXR";
  CHECK(media_error("") == "p: file is empty");
  CHECK(media_error("hello, world") == "p: not a picture: " + wanted);
  CHECK(media_error(std::string(100, '\0')) == "p: not a picture: " + wanted);
  CHECK(media_error("8BPS") == "p: unsupported kind of picture: got Photoshop, " + wanted);
  CHECK(media_error("Pf\n3 2\n") == "p: unsupported kind of picture: got PFM, " + wanted);
  CHECK(media_error("P1000 is a word") == "p: not a picture: " + wanted);
  CHECK(media_error("%PDF-1.7") == "p: unsupported kind of picture: got PDF, " + wanted);
}

TEST_CASE("errors of files name the file") {
  const std::string missing = picture_file("missing.png").string();
  CHECK_THROWS_WITH(load_image(missing),
                    missing + ": can't open the file: got No such file or directory");
  const std::string folder = fixture("pictures").string();
  CHECK_THROWS_WITH(load_image(folder), folder + ": is a folder, not a file");
  const std::string file = picture_file("RGB.png").string();
  CHECK_THROWS_WITH(load_image(file, {.max_bytes = 10}),
                    file + ": file is too large: wanted at most 10 bytes");
  const fs::path locked = fs::temp_directory_path() / "vlm_media_test_locked.png";
  std::ofstream(locked) << "x";
  fs::permissions(locked, fs::perms::none);
  if (::access(locked.c_str(), R_OK) != 0) {  // the superuser may read everything
    CHECK_THROWS_WITH(load_image(locked),
                      locked.string() + ": can't open the file: got Permission denied");
  }
  fs::remove(locked);
}

TEST_CASE("the name of a file does not matter") {
  const fs::path path = fs::temp_directory_path() / "vlm_media_test.jpg";
  fs::copy_file(picture_file("RGB.png"), path, fs::copy_options::overwrite_existing);
  CHECK(load_image(path).pixels == load_image(picture_file("RGB.png")).pixels);
  fs::remove(path);
}

TEST_CASE("libraries print nothing") {
  PrintedText printed;
  int failures = 0;
  const PictureGolden golden("decode");
  for (const Json& expected : golden.cases()) {
    std::string bytes = bytes_of(expected["file"].get<std::string>());
    for (std::size_t at = 20; at < bytes.size(); at += 37) {
      bytes[at] ^= 0x40;
      failures += !media_error(bytes, {.max_pixels = 10'000}).empty();
    }
  }
  CHECK(printed.finish().empty());
  CHECK(failures > 100);
}

TEST_CASE("suffixes of pictures, in either case") {
  for (const char* name : {"a.png", "b/c.JPG", "d.Jpeg", "e.webp", "f.bmp", "g.tif", "h.TIFF",
                           "i.gif", "j.jfif", "k.tar.png", "l.HEIC", "m.avif", "n.MPO", "o.jp2",
                           "p.PPM", "q.pam", "r.hdr", "s.ras", "t.exr"}) {
    CHECK(has_image_suffix(name));
  }
  for (const char* name : {"a", ".png", "png", "a.txt", "b.png.part", "c.jsonl", "d.jxl"}) {
    CHECK_FALSE(has_image_suffix(name));
  }
}

}  // namespace
}  // namespace vlm::data

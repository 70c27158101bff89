// One decoder for each file format: bytes → RGB as Pillow's convert("RGB") gives it, before EXIF
// rotation.
//
//   bytes ─► decode_png, decode_jpeg, … ─► Picture: Image [H, W, 3] u8, orientation 1-8
//
// Each uses the library that Pillow uses (libpng, libjpeg-turbo, libwebp, libtiff; giflib for GIF;
// BMP is read here). OpenCV is not used for these: it treats 16 bits, CMYK, palettes and truncated
// files differently, and OpenCV 4.6 prints errors to stderr. Only the format's file includes the
// library. No decoder prints, rotates the picture, or applies colour profiles (HEIF excepted), as
// Pillow's convert doesn't.
// Reference: Pillow 13.0.0.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "vlm/core/error.h"
#include "vlm/image/image.h"

namespace vlm::data {

struct PictureSource {
  std::string_view bytes;
  std::string where;  // names the picture in errors
  std::int64_t max_pixels = 0;
};

struct DecodedPicture {
  Image image;
  int orientation = 1;  // EXIF's numbers
};

// Each throws Error for a picture that is truncated, corrupt, larger than max_pixels or of an
// unsupported kind.
DecodedPicture decode_png(const PictureSource& source);
DecodedPicture decode_jpeg(const PictureSource& source);
DecodedPicture decode_webp(const PictureSource& source);
DecodedPicture decode_bmp(const PictureSource& source);
DecodedPicture decode_tiff(const PictureSource& source);
DecodedPicture decode_gif(const PictureSource& source);
// HEIC and AVIF, too. Already rotated, and converted to sRGB.
DecodedPicture decode_heif(const PictureSource& source);

// These are in data/pictures/other; the last three use OpenCV.
DecodedPicture decode_netpbm(const PictureSource& source);  // PBM, PGM, PPM and PAM
DecodedPicture decode_sun_raster(const PictureSource& source);
DecodedPicture decode_jpeg2000(const PictureSource& source);
DecodedPicture decode_radiance(const PictureSource& source);
DecodedPicture decode_openexr(const PictureSource& source);

// Throws Error when the size in a header is out of bounds. To be called before memory of that size
// is allocated.
void check_size(const PictureSource& source, std::int64_t height, std::int64_t width);

// Black, [height, width, 3].
Image make_canvas(std::int64_t height, std::int64_t width);

// "where: truncated PNG file", "where: corrupt PNG file: got reason", "where: unsupported …".
Error truncated(const PictureSource& source, const std::string& format);
Error corrupt(const PictureSource& source, const std::string& format, const std::string& reason);
Error unsupported(const PictureSource& source, const std::string& format, const std::string& kind);

// The colour of each index; black where the file's palette is too short.
struct Palette {
  std::array<std::array<std::uint8_t, 3>, 256> colors = {};
};

// `size` pixels → RGB: grey bytes, indices of a palette, or CMYK with 255 as full ink.
void write_gray(const std::uint8_t* in, std::int64_t size, std::uint8_t* out);
void write_indexed(const std::uint8_t* in, std::int64_t size, const Palette& palette,
                   std::uint8_t* out);
void write_cmyk(const std::uint8_t* in, std::int64_t size, std::uint8_t* out);

}  // namespace vlm::data

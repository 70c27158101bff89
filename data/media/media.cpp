#include "data/media/media.h"

#include <algorithm>
#include <array>

#include "data/pictures/decoder.h"
#include "data/pictures/orientation.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"

namespace vlm::data {
namespace {

using Decoder = DecodedPicture (*)(const PictureSource&);

// How a format's files begin. Those without a decoder are known by name, for a better error.
struct Format {
  std::string_view start;
  std::size_t at;
  const char* name;
  Decoder decoder;
};

using namespace std::string_view_literals;

constexpr std::array kFormats = {
    Format{"\x89PNG\r\n\x1a\n"sv, 0, "PNG", decode_png},
    Format{"\xff\xd8\xff"sv, 0, "JPEG", decode_jpeg},
    Format{"WEBP"sv, 8, "WebP", decode_webp},
    Format{"BM"sv, 0, "BMP", decode_bmp},
    Format{"II*\0"sv, 0, "TIFF", decode_tiff},
    Format{"MM\0*"sv, 0, "TIFF", decode_tiff},
    Format{"II+\0"sv, 0, "TIFF", decode_tiff},
    Format{"MM\0+"sv, 0, "TIFF", decode_tiff},
    Format{"GIF87a"sv, 0, "GIF", decode_gif},
    Format{"GIF89a"sv, 0, "GIF", decode_gif},
    Format{"ftypheic"sv, 4, "HEIC", decode_heif},
    Format{"ftypheix"sv, 4, "HEIC", decode_heif},
    Format{"ftypheim"sv, 4, "HEIC", decode_heif},
    Format{"ftypheis"sv, 4, "HEIC", decode_heif},
    Format{"ftyphevc"sv, 4, "HEIC", decode_heif},  // a burst: its primary picture
    Format{"ftypmif1"sv, 4, "HEIF", decode_heif},
    Format{"ftypmsf1"sv, 4, "HEIF", decode_heif},
    Format{"ftypavif"sv, 4, "AVIF", decode_heif},
    Format{"ftypavis"sv, 4, "AVIF", decode_heif},
    Format{"\0\0\0\x0cjP  "sv, 0, "JPEG 2000", decode_jpeg2000},
    Format{"\xff\x4f\xff\x51"sv, 0, "JPEG 2000", decode_jpeg2000},
    Format{"P1"sv, 0, "PBM", decode_netpbm},
    Format{"P2"sv, 0, "PGM", decode_netpbm},
    Format{"P3"sv, 0, "PPM", decode_netpbm},
    Format{"P4"sv, 0, "PBM", decode_netpbm},
    Format{"P5"sv, 0, "PGM", decode_netpbm},
    Format{"P6"sv, 0, "PPM", decode_netpbm},
    Format{"P7"sv, 0, "PAM", decode_netpbm},
    Format{"#?RADIANCE"sv, 0, "Radiance", decode_radiance},
    Format{"#?RGBE"sv, 0, "Radiance", decode_radiance},
    Format{"\x59\xa6\x6a\x95"sv, 0, "Sun raster", decode_sun_raster},
    Format{"\x76\x2f\x31\x01"sv, 0, "EXR", decode_openexr},
    Format{"PF\n"sv, 0, "PFM", nullptr},
    Format{"Pf\n"sv, 0, "PFM", nullptr},
    Format{"\xff\x0a"sv, 0, "JPEG XL", nullptr},
    Format{"\0\0\0\x0cJXL "sv, 0, "JPEG XL", nullptr},
    Format{"8BPS"sv, 0, "Photoshop", nullptr},
    Format{"%PDF"sv, 0, "PDF", nullptr},
    Format{"<svg"sv, 0, "SVG", nullptr},
};

constexpr auto kWanted =
    "PNG, JPEG, WebP, BMP, TIFF, GIF, HEIC, AVIF, JPEG 2000, PNM, Radiance, Sun raster or EXR";

bool begins(std::string_view bytes, const Format& format) {
  if (bytes.size() < format.at) return false;
  bytes.remove_prefix(format.at);
  if (!bytes.starts_with(format.start)) return false;
  // "P6" begins many a text; in a picture white space follows.
  const bool is_netpbm = format.decoder == decode_netpbm;
  return !is_netpbm ||
         (bytes.size() > 2 && (bytes[2] == ' ' || (bytes[2] >= '\t' && bytes[2] <= '\r')));
}

const Format* find_format(std::string_view bytes) {
  const auto* found = std::find_if(kFormats.begin(), kFormats.end(),
                                   [&](const Format& format) { return begins(bytes, format); });
  return found == kFormats.end() ? nullptr : found;
}

}  // namespace

Image load_image(const std::filesystem::path& path, const MediaLimits& limits) {
  return decode_image(load_text(path, static_cast<std::size_t>(limits.max_bytes)), path.string(),
                      limits);
}

Image decode_image(std::string_view bytes, const std::string& where, const MediaLimits& limits) {
  if (bytes.empty()) throw Error({.what = "file is empty", .where = where});
  const Format* format = find_format(bytes);
  if (!format) throw Error({.what = "not a picture", .where = where, .wanted = kWanted});
  if (!format->decoder) {
    throw Error({.what = "unsupported kind of picture",
                 .where = where,
                 .got = format->name,
                 .wanted = kWanted});
  }
  DecodedPicture picture = format->decoder({bytes, where, limits.max_pixels});
  return upright(std::move(picture.image), picture.orientation);
}

bool is_picture_start(std::string_view bytes) {
  return find_format(bytes) != nullptr;
}

bool has_image_suffix(const std::filesystem::path& path) {
  const std::string suffix = ascii_lower(path.extension().string());
  constexpr std::array kSuffixes = {
      ".png",  ".apng", ".jpg",  ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".tif",
      ".tiff", ".gif",  ".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k",  ".j2c", ".jpf",
      ".jpx",  ".pbm",  ".pgm",  ".ppm",  ".pnm", ".pam",  ".hdr", ".ras",  ".sun", ".exr"};
  return std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
}

}  // namespace vlm::data

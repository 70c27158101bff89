// Sun raster files of 1, 8, 24 and 32 bits, plain or with run lengths, with or without a palette.
//
// Read here and not by OpenCV, whose version 4.6 makes grey without a palette black. Of 32 bits the
// first byte is empty, as in the reference, FFmpeg and OpenCV; Pillow takes it for a colour.
// Reference: rasterfile(5) of SunOS 4.
#include <algorithm>

#include "data/pictures/other/header_reader.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

constexpr const char* kSunRaster = "Sun raster";

struct SunHeader {
  std::int64_t width = 0, height = 0, depth = 0, type = 0;
  std::string_view palette;  // all reds, all greens, all blues
};

enum SunType { kOld = 0, kStandard = 1, kRunLengths = 2, kRgb = 3 };

SunHeader read_sun_header(const PictureSource& source, HeaderReader& reader) {
  reader.go_to(4);
  SunHeader header;
  header.width = reader.big_endian(4);
  header.height = reader.big_endian(4);
  header.depth = reader.big_endian(4);
  reader.read_bytes(4);  // length of the pixels, 0 in old files
  header.type = reader.big_endian(4);
  const std::uint32_t palette_type = reader.big_endian(4);
  const std::uint32_t palette_size = reader.big_endian(4);
  check_size(source, header.height, header.width);
  const bool is_known =
      header.depth == 1 || header.depth == 8 || header.depth == 24 || header.depth == 32;
  if (!is_known) throw unsupported(source, kSunRaster, concat(header.depth, " bits a pixel"));
  if (header.type > kRgb) throw unsupported(source, kSunRaster, concat("type ", header.type));
  if (palette_size > 0 && (palette_type != 1 || palette_size > 768 || palette_size % 3 != 0)) {
    throw unsupported(source, kSunRaster,
                      concat("palette of type ", palette_type, " and ", palette_size, " bytes"));
  }
  header.palette = reader.read_bytes(palette_size);
  return header;
}

// 0x80 begins a run: 0x80 0 is the byte 0x80, 0x80 n v is n + 1 times v.
std::string unpack(const PictureSource& source, HeaderReader& reader, std::size_t size) {
  std::string bytes;
  while (bytes.size() < size) {
    const std::string_view byte = reader.read_bytes(1);
    std::size_t count = 1;
    if (byte == "\x80" && (count = reader.big_endian(1) + 1) > 1) {
      bytes.append(count, reader.read_bytes(1)[0]);
    } else {
      bytes += byte;
    }
  }
  if (bytes.size() > size) throw corrupt(source, kSunRaster, "a run that passes the end");
  return bytes;
}

// Colours of the indices; without a palette grey, and of one bit 0 is white.
Palette make_palette(const SunHeader& header) {
  Palette palette;
  const std::size_t size = header.palette.size() / 3;
  for (std::size_t i = 0; i < palette.colors.size(); ++i) {
    const bool is_white = header.depth == 1 ? i == 0 : false;
    palette.colors[i].fill(header.depth == 1 ? (is_white ? 255 : 0) : static_cast<std::uint8_t>(i));
    for (std::size_t c = 0; c < 3 && size > 0; ++c) {
      palette.colors[i][c] =
          i < size ? static_cast<std::uint8_t>(header.palette[c * size + i]) : std::uint8_t{0};
    }
  }
  return palette;
}

void write_row(const SunHeader& header, const Palette& palette, const std::uint8_t* in,
               std::uint8_t* out) {
  if (header.depth == 8) return write_indexed(in, header.width, palette, out);
  for (std::int64_t x = 0; x < header.width; ++x, out += 3) {
    if (header.depth == 1) {
      const auto bit = static_cast<std::uint8_t>(in[x / 8] >> (7 - x % 8) & 1);
      write_indexed(&bit, 1, palette, out);
      continue;
    }
    const std::uint8_t* pixel = in + x * header.depth / 8 + (header.depth == 32 ? 1 : 0);
    std::copy_n(pixel, 3, out);
    if (header.type != kRgb) std::swap(out[0], out[2]);
  }
}

}  // namespace

DecodedPicture decode_sun_raster(const PictureSource& source) {
  HeaderReader reader(source, kSunRaster);
  const SunHeader header = read_sun_header(source, reader);
  const std::int64_t stride = (header.width * header.depth + 15) / 16 * 2;
  const auto size = static_cast<std::size_t>(stride * header.height);
  std::string unpacked;
  if (header.type == kRunLengths) unpacked = unpack(source, reader, size);
  const std::string_view bytes = header.type == kRunLengths ? unpacked : reader.read_bytes(size);
  const Palette palette = make_palette(header);
  Image image = make_canvas(header.height, header.width);
  for (std::int64_t y = 0; y < header.height; ++y) {
    write_row(header, palette, reinterpret_cast<const std::uint8_t*>(bytes.data()) + y * stride,
              image.pixels.data() + y * header.width * 3);
  }
  return {.image = std::move(image)};
}

}  // namespace vlm::data

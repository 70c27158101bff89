// JPEG 2000, as codestream (.j2k) or in a file of boxes (.jp2, .jpx).
//
// Colours of more than 8 bits keep their high byte. Grey of more than 8 bits is scaled to 16 and
// clipped at 255, which is what Pillow makes of it.
// Reference: ISO/IEC 15444-1, annexes A and I; PIL.Jpeg2KImagePlugin, Pillow 13.0.0.
#include <algorithm>

#include "data/pictures/other/header_reader.h"
#include "data/pictures/other/opencv_decoder.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

using namespace std::string_view_literals;

constexpr const char* kJpeg2000 = "JPEG 2000";
constexpr std::string_view kCodestream = "\xff\x4f\xff\x51"sv;
constexpr int kLeastBits = 8, kMostBits = 16, kMostComponents = 4;

// `header` is a box's content. Its colour box may say sYCC, which OpenCV 4.6 converts by other
// numbers than the standard's.
void check_colors(const PictureSource& source, std::string_view header) {
  constexpr std::string_view kEnumerated = "colr\1"sv, kSycc = "\0\0\0\x12"sv;
  const std::size_t box = header.find(kEnumerated);
  if (box == std::string_view::npos || header.size() < box + 11) return;
  if (header.substr(box + 7, 4) == kSycc) throw unsupported(source, kJpeg2000, "colours as sYCC");
}

// The codestream's place: the file's begin, or behind the header of the box that holds it.
std::size_t find_codestream(const PictureSource& source) {
  if (source.bytes.starts_with(kCodestream)) return 0;
  HeaderReader reader(source, kJpeg2000);
  for (;;) {
    const std::size_t begin = reader.at();
    std::uint64_t length = reader.big_endian(4);
    const std::string_view type = reader.read_bytes(4);
    if (length == 1) {
      length = std::uint64_t{reader.big_endian(4)} << 32;
      length |= reader.big_endian(4);
    }
    if (type == "jp2c") return reader.at();
    const std::size_t read = reader.at() - begin;
    if (length < read) throw corrupt(source, kJpeg2000, "no codestream");
    if (length > source.bytes.size() - begin) throw truncated(source, kJpeg2000);
    const std::string_view content = reader.read_bytes(length - read);
    if (type == "jp2h") check_colors(source, content);
  }
}

struct Jpeg2000Header {
  PictureHeader picture{.format = kJpeg2000};
  int bits = 0;
};

// Of one component; throws Error where OpenCV would refuse it, or take it for something else.
int read_component(const PictureSource& source, HeaderReader& reader) {
  const std::uint32_t depth = reader.big_endian(1);
  const int bits = static_cast<int>(depth & 0x7f) + 1;
  const bool is_small = reader.big_endian(2) != 0x0101;
  if (is_small) throw unsupported(source, kJpeg2000, "components of different sizes");
  if ((depth & 0x80) != 0) throw unsupported(source, kJpeg2000, "signed samples");
  if (bits < kLeastBits || bits > kMostBits) {
    throw unsupported(source, kJpeg2000, concat(bits, " bits a sample"));
  }
  return bits;
}

Jpeg2000Header read_jpeg2000_header(const PictureSource& source) {
  HeaderReader reader(source, kJpeg2000);
  reader.go_to(find_codestream(source));
  if (reader.read_bytes(4) != kCodestream) throw corrupt(source, kJpeg2000, "no codestream");
  reader.read_bytes(4);   // length and capabilities
  std::int64_t edges[4];  // right, bottom, left, top
  for (std::int64_t& edge : edges) edge = reader.big_endian(4);
  Jpeg2000Header header;
  header.picture.width = edges[0] - edges[2];
  header.picture.height = edges[1] - edges[3];
  check_size(source, header.picture.height, header.picture.width);
  reader.read_bytes(16);  // tiles
  const std::uint32_t components = reader.big_endian(2);
  if (components < 1 || components > kMostComponents) {
    throw unsupported(source, kJpeg2000, concat(components, " components"));
  }
  header.picture.is_gray_with_alpha = components == 2;
  for (std::uint32_t i = 0; i < components; ++i) {
    header.bits = std::max(header.bits, read_component(source, reader));
  }
  return header;
}

}  // namespace

DecodedPicture decode_jpeg2000(const PictureSource& source) {
  const Jpeg2000Header header = read_jpeg2000_header(source);
  const int bits = header.bits;
  return decode_with_opencv(source, header.picture, [bits](std::uint32_t value, bool is_gray) {
    if (bits == 8) return static_cast<std::uint8_t>(value);
    if (is_gray) value <<= kMostBits - bits;
    return static_cast<std::uint8_t>(
        std::min<std::uint32_t>(is_gray ? value : value >> (bits - 8), 255));
  });
}

}  // namespace vlm::data

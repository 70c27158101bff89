// OpenEXR, where OpenCV was built with it. OpenCV keeps it off for the sake of safety, and so do
// we, until its variable OPENCV_IO_ENABLE_OPENEXR turns it on.
// Reference: OpenEXR 3, "File Layout".
#include <cstdlib>

#include "data/pictures/other/header_reader.h"
#include "data/pictures/other/opencv_decoder.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

constexpr auto kVariable = "OPENCV_IO_ENABLE_OPENEXR";

// The first part's data window is what is decoded.
PictureHeader read_exr_header(const PictureSource& source) {
  PictureHeader header{.format = "EXR"};
  HeaderReader reader(source, header.format);
  reader.go_to(8);
  for (;;) {
    const std::string_view name = reader.until('\0');
    if (name.empty()) throw corrupt(source, header.format, "no data window");
    reader.until('\0');  // the attribute's type
    const std::uint32_t size = reader.little_endian(4);
    const std::size_t behind = reader.at() + size;
    if (name == "dataWindow") {
      std::int32_t edges[4];  // left, top, right, bottom; the last two inside
      for (std::int32_t& edge : edges) edge = static_cast<std::int32_t>(reader.little_endian(4));
      header.width = std::int64_t{edges[2]} - edges[0] + 1;
      header.height = std::int64_t{edges[3]} - edges[1] + 1;
      return header;
    }
    reader.go_to(behind);
  }
}

}  // namespace

DecodedPicture decode_openexr(const PictureSource& source) {
  const PictureHeader header = read_exr_header(source);
  check_size(source, header.height, header.width);
  if (const char* set = std::getenv(kVariable); !set || !*set) {
    throw Error({.what = "EXR pictures are read only when that is asked for",
                 .where = source.where,
                 .hint = concat(kVariable,
                                "=1 does it; OpenCV's reader isn't safe with files of "
                                "strangers")});
  }
  return decode_with_opencv(source, header);
}

}  // namespace vlm::data

// Radiance's HDR pictures (.hdr, .pic): four bytes a pixel with a common exponent. OpenCV decodes
// them from a file, which it writes beside other temporary ones (OPENCV_TEMP_PATH).
// Reference: Radiance's "File Formats", section pictures.
#include "data/pictures/other/header_reader.h"
#include "data/pictures/other/opencv_decoder.h"
#include "vlm/core/concat.h"

namespace vlm::data {

// Lines up to an empty one, then "-Y 480 +X 640": rows from the top, the one order that OpenCV
// reads.
DecodedPicture decode_radiance(const PictureSource& source) {
  PictureHeader header{.format = "Radiance"};
  HeaderReader reader(source, header.format);
  while (!reader.until('\n').empty()) {
  }
  const std::string_view first = reader.word(), height = reader.word(), second = reader.word();
  if (first != "-Y" || second != "+X") {
    throw unsupported(source, header.format, concat("order of pixels ", first, " ", second));
  }
  header.height = reader.number(height);
  header.width = reader.number(reader.word());
  return decode_with_opencv(source, header);
}

}  // namespace vlm::data

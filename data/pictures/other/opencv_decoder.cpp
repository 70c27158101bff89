#include "data/pictures/other/opencv_decoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "data/opencv/opencv_library.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/core/plugin.h"

namespace vlm::data {
namespace {

const OpencvLibrary& opencv_library(const PictureSource& source) {
  using Function = const OpencvLibrary* (*)();
  try {
    static const OpencvLibrary* library = reinterpret_cast<Function>(
        open_plugin("vlm_opencv", "vlm_opencv_library", "JPEG 2000, Radiance and EXR pictures"))();
    return *library;
  } catch (const Error& error) {
    throw located(error, source.where);
  }
}

std::uint8_t encoded(float light) {
  if (!(light > 0)) return 0;  // not a number, too
  if (light >= 1) return 255;
  const float value =
      light <= 0.0031308F ? 12.92F * light : 1.055F * std::pow(light, 1 / 2.4F) - 0.055F;
  return static_cast<std::uint8_t>(std::lround(255 * value));
}

// Rows of samples → RGB; `convert` makes a byte of a sample.
template <typename Sample, typename Convert>
void write_rgb(const RawPicture& raw, const Convert& convert, std::uint8_t* out) {
  const int channels = raw.channels;
  for (std::int64_t y = 0; y < raw.height; ++y) {
    const auto* in = reinterpret_cast<const Sample*>(raw.samples + y * raw.stride);
    for (std::int64_t x = 0; x < raw.width; ++x, in += channels, out += 3) {
      for (int c = 0; c < 3; ++c) out[c] = convert(in[channels < 3 ? 0 : 2 - c]);
    }
  }
}

template <typename Sample>
void write_whole_numbers(const RawPicture& raw, const ToByte& to_byte, std::uint8_t* out) {
  std::vector<std::uint8_t> table(std::size_t{1} << (8 * sizeof(Sample)));
  for (std::uint32_t value = 0; value < table.size(); ++value) {
    table[value] = to_byte(value, raw.channels < 3);
  }
  write_rgb<Sample>(
      raw, [&](Sample value) { return table[value]; }, out);
}

Image to_image(const RawPicture& raw, const ToByte& to_byte) {
  Image image = make_canvas(raw.height, raw.width);
  std::uint8_t* out = image.pixels.data();
  if (raw.kind == SampleKind::kFloat) write_rgb<float>(raw, encoded, out);
  if (raw.kind == SampleKind::kByte) write_whole_numbers<std::uint8_t>(raw, to_byte, out);
  if (raw.kind == SampleKind::kWord) write_whole_numbers<std::uint16_t>(raw, to_byte, out);
  return image;
}

}  // namespace

std::uint8_t same_byte(std::uint32_t value, bool) {
  return static_cast<std::uint8_t>(value);
}

DecodedPicture decode_with_opencv(const PictureSource& source, const PictureHeader& header,
                                  const ToByte& to_byte) {
  check_size(source, header.height, header.width);
  const OpencvLibrary& library = opencv_library(source);
  Image image;
  std::string said;
  try {
    said = library.decode(source.bytes, header.is_gray_with_alpha, [&](const RawPicture& raw) {
      if (raw.height == header.height && raw.width == header.width) image = to_image(raw, to_byte);
    });
  } catch (const std::runtime_error& error) {
    throw corrupt(source, header.format, error.what());
  }
  if (image.pixels.empty()) throw corrupt(source, header.format, "another size than its header's");
  if (!said.empty()) log_debug(concat(source.where, ": ", said));
  return {.image = std::move(image)};
}

}  // namespace vlm::data

#include "data/pictures/decoder.h"

#include <algorithm>

#include "vlm/core/concat.h"

namespace vlm::data {

void check_size(const PictureSource& source, std::int64_t height, std::int64_t width) {
  if (height < 1 || width < 1) {
    throw Error({.what = "picture has no pixels",
                 .where = source.where,
                 .got = concat(width, " × ", height)});
  }
  if (height > source.max_pixels / width) {
    throw Error({.what = "picture has too many pixels",
                 .where = source.where,
                 .got = concat(width, " × ", height),
                 .wanted = concat("at most ", source.max_pixels)});
  }
}

Image make_canvas(std::int64_t height, std::int64_t width) {
  return {height, width, std::vector<std::uint8_t>(height * width * 3)};
}

Error truncated(const PictureSource& source, const std::string& format) {
  return Error({.what = concat("truncated ", format, " file"), .where = source.where});
}

Error corrupt(const PictureSource& source, const std::string& format, const std::string& reason) {
  return Error({.what = concat("corrupt ", format, " file"), .where = source.where, .got = reason});
}

Error unsupported(const PictureSource& source, const std::string& format, const std::string& kind) {
  return Error(
      {.what = concat("unsupported kind of ", format), .where = source.where, .got = kind});
}

void write_gray(const std::uint8_t* in, std::int64_t size, std::uint8_t* out) {
  for (std::int64_t i = 0; i < size; ++i, out += 3) out[0] = out[1] = out[2] = in[i];
}

void write_indexed(const std::uint8_t* in, std::int64_t size, const Palette& palette,
                   std::uint8_t* out) {
  for (std::int64_t i = 0; i < size; ++i, out += 3) {
    std::copy_n(palette.colors[in[i]].data(), 3, out);
  }
}

void write_cmyk(const std::uint8_t* in, std::int64_t size, std::uint8_t* out) {
  for (std::int64_t i = 0; i < size; ++i, in += 4, out += 3) {
    const int light = 255 - in[3];
    for (int channel = 0; channel < 3; ++channel) {
      const int product = in[channel] * light + 128;  // divided by 255, rounded
      out[channel] = static_cast<std::uint8_t>(light - ((product + (product >> 8)) >> 8));
    }
  }
}

}  // namespace vlm::data

#include "data/pictures/orientation.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace vlm::data {
namespace {

constexpr std::uint32_t kOrientationTag = 274;

// Numbers of a TIFF structure in its own byte order.
class TiffBytes {
 public:
  TiffBytes(std::string_view bytes, bool big_endian) : bytes_(bytes), big_endian_(big_endian) {}

  // The unsigned number of `size` bytes at `at`; empty past the end.
  std::optional<std::uint32_t> number(std::size_t at, std::size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) return std::nullopt;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t place = big_endian_ ? i : size - 1 - i;
      value = value << 8 | static_cast<std::uint8_t>(bytes_[at + place]);
    }
    return value;
  }

 private:
  std::string_view bytes_;
  bool big_endian_;
};

// The value of an entry of 12 bytes: tag, type, count, value. Only one number of an integer type
// makes sense here.
std::optional<int> entry_value(const TiffBytes& tiff, std::size_t entry) {
  const auto type = tiff.number(entry + 2, 2);
  const auto count = tiff.number(entry + 4, 4);
  if (count != 1U) return std::nullopt;
  std::optional<std::uint32_t> value;
  if (type == 3U || type == 8U) value = tiff.number(entry + 8, 2);
  if (type == 4U || type == 9U) value = tiff.number(entry + 8, 4);
  if (!value) return std::nullopt;
  return static_cast<int>(std::min<std::uint32_t>(*value, 255));
}

}  // namespace

std::optional<int> exif_orientation(std::string_view exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  while (exif.substr(0, kPrefix.size()) == kPrefix) exif.remove_prefix(kPrefix.size());
  const bool big_endian = exif.substr(0, 4) == std::string_view("MM\0*", 4);
  if (!big_endian && exif.substr(0, 4) != std::string_view("II*\0", 4)) return std::nullopt;
  const TiffBytes tiff(exif, big_endian);
  const auto directory = tiff.number(4, 4);
  if (!directory) return std::nullopt;
  const auto entries = tiff.number(*directory, 2).value_or(0);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = *directory + 2 + 12 * i;
    const auto tag = tiff.number(entry, 2);
    if (!tag) return std::nullopt;
    if (*tag == kOrientationTag) return entry_value(tiff, entry);
  }
  return std::nullopt;
}

std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (auto at = xmp.find(kName); at != xmp.npos; at = xmp.find(kName, at + 1)) {
    std::string_view tail = xmp.substr(at + kName.size());
    if (tail.substr(0, 2) == "=\"") {
      tail.remove_prefix(2);
    } else if (tail.substr(0, 1) == ">") {
      tail.remove_prefix(1);
    } else {
      continue;
    }
    if (!tail.empty() && tail[0] >= '0' && tail[0] <= '9') return tail[0] - '0';
  }
  return std::nullopt;
}

int find_orientation(std::string_view exif, std::string_view xmp) {
  std::optional<int> found = exif_orientation(exif);
  if (!found) found = xmp_orientation(xmp);
  return found && *found >= 1 && *found <= 8 ? *found : 1;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool swaps = orientation >= 5;
  const bool flips_rows =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool flips_columns =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  // Reading order of the output, as steps through the input.
  const std::int64_t row = (flips_rows ? -image.width : image.width) * 3;
  const std::int64_t column = flips_columns ? -3 : 3;
  const std::uint8_t* start = image.pixels.data();
  if (flips_rows) start -= row * (image.height - 1);
  if (flips_columns) start -= column * (image.width - 1);

  Image out{swaps ? image.width : image.height, swaps ? image.height : image.width,
            std::vector<std::uint8_t>(image.pixels.size())};
  const std::int64_t down = swaps ? column : row;
  const std::int64_t right = swaps ? row : column;
  std::uint8_t* pixel = out.pixels.data();
  for (std::int64_t y = 0; y < out.height; ++y) {
    const std::uint8_t* in = start + y * down;
    for (std::int64_t x = 0; x < out.width; ++x, in += right, pixel += 3) {
      std::copy_n(in, 3, pixel);
    }
  }
  return out;
}

}  // namespace vlm::data

// BMP, read here: rows of indices or packed colours behind a header, or run lengths. Follows Pillow
// in what it takes (headers of Windows 2 to 5 and OS/2, 1 to 32 bits, two 16-bit layouts, run
// lengths of 4 and 8 bits) and drops alpha.
#include <algorithm>
#include <bit>
#include <vector>

#include "data/pictures/decoder.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

enum Compression : std::uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitfields = 3 };

// Windows 3, 4 (three sizes), 5 and OS/2 2; they begin alike.
constexpr std::array<std::size_t, 6> kLongHeaders = {40, 52, 56, 64, 108, 124};

struct Header {
  std::size_t size = 0;  // from byte 14 on
  std::int64_t width = 0;
  std::int64_t height = 0;
  bool top_down = false;
  std::uint32_t bits = 0;
  std::uint32_t compression = kRaw;
  std::size_t color_count = 0;
  std::size_t color_bytes = 4;  // a palette entry
  std::size_t palette = 0;      // where in the file
  std::size_t pixels = 0;
  std::array<std::uint32_t, 3> masks = {};  // red, green, blue
};

class BmpReader {
 public:
  explicit BmpReader(const PictureSource& source) : source_(source) {}

  DecodedPicture read() {
    read_header();
    check_size(source_, header_.height, header_.width);
    check_kind();
    Image image = make_canvas(header_.height, header_.width);
    if (header_.compression == kRle4 || header_.compression == kRle8) {
      read_runs(image);
    } else {
      read_rows(image);
    }
    return {std::move(image)};
  }

 private:
  // `size` little-endian bytes at `at`.
  std::uint32_t number(std::size_t at, std::size_t size) const {
    if (at + size > source_.bytes.size()) throw truncated(source_, "BMP");
    std::uint32_t value = 0;
    for (std::size_t i = size; i-- > 0;) value = value << 8 | byte(at + i);
    return value;
  }

  std::uint8_t byte(std::size_t at) const { return static_cast<std::uint8_t>(source_.bytes[at]); }

  void read_header() {
    header_.size = number(14, 4);
    if (header_.size == 12) {
      header_.width = number(18, 2);
      header_.height = number(20, 2);
      header_.bits = number(24, 2);
      header_.color_bytes = 3;
    } else if (std::find(kLongHeaders.begin(), kLongHeaders.end(), header_.size) !=
               kLongHeaders.end()) {
      read_long_header();
    } else {
      throw unsupported(source_, "BMP", concat("a header of ", header_.size, " bytes"));
    }
    header_.palette += 14 + header_.size;
    header_.pixels = number(10, 4);
    if (header_.color_count == 0 && header_.bits <= 8) header_.color_count = 1U << header_.bits;
    // Some writers point at the palette instead of the pixels behind it.
    if (header_.bits <= 8 && header_.pixels == 14 + header_.size) {
      header_.pixels += header_.color_bytes * header_.color_count;
    }
  }

  void read_long_header() {
    header_.width = number(18, 4);
    const std::uint32_t height = number(22, 4);
    header_.top_down = height >> 24 == 0xFF;  // a negative height
    header_.height = header_.top_down ? std::int64_t{0x100000000} - height : height;
    header_.bits = number(28, 2);
    header_.compression = number(30, 4);
    header_.color_count = number(46, 4);
    if (header_.compression != kBitfields) return;
    for (std::size_t i = 0; i < 3; ++i) header_.masks[i] = number(54 + 4 * i, 4);
    if (header_.size == 40) header_.palette += 12;  // the masks lie between
  }

  void check_kind() {
    const std::uint32_t bits = header_.bits;
    const bool depth =
        bits == 1 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32;
    if (!depth) throw unsupported(source_, "BMP", concat(bits, " bits a pixel"));
    if (header_.compression > kBitfields) {
      throw unsupported(source_, "BMP", concat("compression ", header_.compression));
    }
    if (header_.compression == kBitfields && !set_masks()) {
      throw unsupported(source_, "BMP", "a layout of colour bits");
    }
    if (header_.compression == kRle8 || header_.compression == kRle4) {
      if (bits != 8 && bits != 4) throw corrupt(source_, "BMP", "run lengths without a palette");
    }
  }

  // Whether this reader knows the layout.
  bool set_masks() {
    using Masks = std::array<std::uint32_t, 3>;
    Masks& masks = header_.masks;
    if (header_.bits == 16) {
      return masks == Masks{0xF800, 0x7E0, 0x1F} || masks == Masks{0x7C00, 0x3E0, 0x1F};
    }
    if (header_.bits == 24) return masks == Masks{0xFF0000, 0xFF00, 0xFF};
    if (header_.bits == 32 && masks == Masks{}) masks = {0xFF0000, 0xFF00, 0xFF};
    return header_.bits == 32 && std::all_of(masks.begin(), masks.end(), [](std::uint32_t mask) {
             return mask == 0xFF || mask == 0xFF00 || mask == 0xFF0000 || mask == 0xFF000000;
           });
  }

  std::uint8_t* row_of(Image& image, std::int64_t y) const {
    return image.pixels.data() + (header_.top_down ? y : image.height - 1 - y) * image.width * 3;
  }

  void read_rows(Image& image) {
    const std::size_t stride =
        (static_cast<std::size_t>(header_.width) * header_.bits + 31) / 32 * 4;
    const std::size_t used = (static_cast<std::size_t>(header_.width) * header_.bits + 7) / 8;
    const std::size_t rows = static_cast<std::size_t>(header_.height);
    if (header_.pixels > source_.bytes.size() ||
        stride * (rows - 1) + used > source_.bytes.size() - header_.pixels) {
      throw truncated(source_, "BMP");
    }
    const Palette colors = palette();
    std::vector<std::uint8_t> indices(header_.width);
    for (std::size_t y = 0; y < rows; ++y) {
      const auto* in =
          reinterpret_cast<const std::uint8_t*>(source_.bytes.data()) + header_.pixels + y * stride;
      std::uint8_t* out = row_of(image, static_cast<std::int64_t>(y));
      if (header_.bits > 8) {
        write_packed(in, out);
        continue;
      }
      const std::uint32_t per_byte = 8 / header_.bits;
      for (std::int64_t x = 0; x < header_.width; ++x) {
        const auto shift = (per_byte - 1 - x % per_byte) * header_.bits;
        indices[x] = in[x / per_byte] >> shift & ((1U << header_.bits) - 1);
      }
      write_indexed(indices.data(), header_.width, colors, out);
    }
  }

  // One row of 16, 24 or 32 bits.
  void write_packed(const std::uint8_t* in, std::uint8_t* out) const {
    const std::size_t bytes = header_.bits / 8;
    std::array<std::uint32_t, 3> masks = header_.masks;
    if (header_.compression == kRaw) {
      masks = {0xFF0000, 0xFF00, 0xFF};
      if (header_.bits == 16) masks = {0x7C00, 0x3E0, 0x1F};
    }
    std::array<int, 3> shifts = {};
    std::array<std::uint32_t, 3> mosts = {};  // the largest value of each colour
    for (std::size_t i = 0; i < 3; ++i) {
      shifts[i] = std::countr_zero(masks[i]);
      mosts[i] = masks[i] >> shifts[i];
    }
    for (std::int64_t x = 0; x < header_.width; ++x, in += bytes) {
      std::uint32_t pixel = 0;
      for (std::size_t i = bytes; i-- > 0;) pixel = pixel << 8 | in[i];
      for (std::size_t i = 0; i < 3; ++i) {
        const std::uint32_t value = pixel >> shifts[i] & mosts[i];
        *out++ = static_cast<std::uint8_t>(mosts[i] == 255 ? value : value * 255 / mosts[i]);
      }
    }
  }

  Palette palette() const {
    Palette palette;
    if (header_.bits > 8) return palette;
    const std::size_t size = header_.color_bytes;
    for (std::size_t i = 0; i < std::min<std::size_t>(header_.color_count, 256); ++i) {
      const std::size_t at = header_.palette + i * size;
      if (at + size > source_.bytes.size()) break;
      palette.colors[i] = {byte(at + 2), byte(at + 1), byte(at)};
    }
    return palette;
  }

  void read_runs(Image& image) const {
    const std::vector<std::uint8_t> indices = expand_runs();
    if (static_cast<std::int64_t>(indices.size()) < image.height * image.width) {
      throw truncated(source_, "BMP");
    }
    const Palette colors = palette();
    for (std::int64_t y = 0; y < image.height; ++y) {
      write_indexed(indices.data() + y * image.width, image.width, colors, row_of(image, y));
    }
  }

  // Commands are pairs of bytes: a count and what to repeat; or 0 and: 0 end of row, 1 end of
  // picture, 2 skip, n that many indices as they are.
  std::vector<std::uint8_t> expand_runs() const {
    const auto width = static_cast<std::size_t>(header_.width);
    const std::size_t total = width * static_cast<std::size_t>(header_.height);
    std::vector<std::uint8_t> out;
    std::size_t x = 0;
    std::size_t at = header_.pixels;
    while (out.size() < total && at + 2 <= source_.bytes.size()) {
      const std::size_t count = byte(at);
      const std::uint8_t value = byte(at + 1);
      at += 2;
      if (count > 0) {
        const std::size_t fits = std::min(count, x < width ? width - x : 0);
        for (std::size_t i = 0; i < fits; ++i) out.push_back(run_index(value, i));
        x += fits;
      } else if (value == 0) {
        out.resize((out.size() + width - 1) / width * width);
        x = 0;
      } else if (value == 1) {
        break;
      } else if (value == 2) {
        if (at + 2 > source_.bytes.size()) break;
        out.resize(std::min(total, out.size() + byte(at) + byte(at + 1) * width));
        at += 2;
        x = out.size() % width;
      } else {
        const std::size_t literal = std::min<std::size_t>(total - out.size(), value);
        const std::size_t bytes = header_.compression == kRle4 ? (literal + 1) / 2 : literal;
        if (at + bytes > source_.bytes.size()) break;
        for (std::size_t i = 0; i < literal; ++i) {
          out.push_back(header_.compression == kRle4 ? run_index(byte(at + i / 2), i)
                                                     : byte(at + i));
        }
        at += bytes;
        at += at % 2;
        x += value;
      }
    }
    return out;
  }

  // The i-th index of a byte that stands for two (4 bits) or is one (8 bits).
  std::uint8_t run_index(std::uint8_t value, std::size_t i) const {
    if (header_.compression == kRle8) return value;
    return i % 2 == 0 ? value >> 4 : value & 0xF;
  }

  const PictureSource& source_;
  Header header_;
};

}  // namespace

DecodedPicture decode_bmp(const PictureSource& source) {
  return BmpReader(source).read();
}

}  // namespace vlm::data

// TIFF through libtiff: the first picture of the file, read block by block (strips or tiles) and
// brought to 8 bits by Pillow's rules: grey of more than 8 bits and floats are clipped at 255, not
// scaled; colours of 16 bits keep their high byte; alpha is dropped, after dividing by it where the
// colours were multiplied with it.
#include <tiffio.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "data/pictures/decoder.h"
#include "data/pictures/orientation.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

// The file in memory, and what libtiff had to say about it.
struct Stream {
  std::string_view bytes;
  std::size_t at = 0;
  bool ended = false;  // asked for bytes past the end
  std::string message;
};

tmsize_t on_read(thandle_t handle, void* out, tmsize_t size) {
  auto& stream = *static_cast<Stream*>(handle);
  const std::size_t left = stream.bytes.size() - std::min(stream.at, stream.bytes.size());
  const auto count = std::min(left, static_cast<std::size_t>(size));
  stream.ended = stream.ended || count < static_cast<std::size_t>(size);
  if (count > 0) std::memcpy(out, stream.bytes.data() + stream.at, count);
  stream.at += count;
  return static_cast<tmsize_t>(count);
}

tmsize_t on_write(thandle_t, void*, tmsize_t) {
  return 0;
}

toff_t on_seek(thandle_t handle, toff_t offset, int whence) {
  auto& stream = *static_cast<Stream*>(handle);
  if (whence == SEEK_CUR) offset += stream.at;
  if (whence == SEEK_END) offset += stream.bytes.size();
  stream.at = offset;
  return offset;
}

int on_close(thandle_t) {
  return 0;
}

toff_t on_size(thandle_t handle) {
  return static_cast<Stream*>(handle)->bytes.size();
}

int on_error(TIFF*, void* user, const char*, const char* format, va_list arguments) {
  char text[256];
  std::vsnprintf(text, sizeof text, format, arguments);
  auto& message = static_cast<Stream*>(user)->message;
  if (message.empty()) message = text;  // the first is the cause
  return 1;
}

int on_warning(TIFF*, void*, const char*, const char*, va_list) {
  return 1;
}

struct CloseTiff {
  void operator()(TIFF* tiff) const { TIFFClose(tiff); }
};

enum class Kind { kGray, kRgb, kPalette, kCmyk };

struct Layout {
  std::uint32_t height = 0;
  std::uint32_t width = 0;
  std::uint16_t bits = 1;
  std::uint16_t samples = 1;
  std::uint16_t photometric = 0;
  std::uint16_t format = SAMPLEFORMAT_UINT;
  bool separate = false;       // one block a sample
  bool premultiplied = false;  // the sample behind the colours is alpha, multiplied in
  Kind kind = Kind::kGray;
  std::uint16_t colors = 1;  // samples of a pixel that are colours
  bool tiled = false;
  std::uint32_t block_height = 0;
  std::uint32_t block_width = 0;
};

// The length of the whole blocks that cover `side`.
std::int64_t padded(std::int64_t side, std::int64_t block) {
  return (side + block - 1) / block * block;
}

class TiffReader {
 public:
  explicit TiffReader(const PictureSource& source) : source_(source) {
    stream_.bytes = source.bytes;
    const std::unique_ptr<TIFFOpenOptions, decltype(&TIFFOpenOptionsFree)> options(
        TIFFOpenOptionsAlloc(), TIFFOpenOptionsFree);
    TIFFOpenOptionsSetErrorHandlerExtR(options.get(), on_error, &stream_);
    TIFFOpenOptionsSetWarningHandlerExtR(options.get(), on_warning, &stream_);
    tiff_.reset(TIFFClientOpenExt("picture", "rm", &stream_, on_read, on_write, on_seek, on_close,
                                  on_size, nullptr, nullptr, options.get()));
    if (!tiff_) throw failure("no directory");
  }

  DecodedPicture read() {
    TIFFGetField(tiff_.get(), TIFFTAG_IMAGELENGTH, &layout_.height);
    TIFFGetField(tiff_.get(), TIFFTAG_IMAGEWIDTH, &layout_.width);
    check_size(source_, layout_.height, layout_.width);
    const auto compression = field<std::uint16_t>(TIFFTAG_COMPRESSION, COMPRESSION_NONE);
    if (TIFFIsCODECConfigured(compression) == 0) {
      throw unsupported(source_, "TIFF", concat("compression ", compression));
    }
    const auto photometric = field<std::uint16_t>(TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISWHITE);
    const auto planar = field<std::uint16_t>(TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    const bool is_ycbcr = photometric == PHOTOMETRIC_YCBCR || compression == COMPRESSION_OJPEG;
    if (!is_ycbcr) return finish(read_blocks(photometric));
    const bool libjpeg_converts = compression == COMPRESSION_JPEG && planar == PLANARCONFIG_CONTIG;
    if (!libjpeg_converts) return finish(read_ycbcr());
    TIFFSetField(tiff_.get(), TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    return finish(read_blocks(PHOTOMETRIC_RGB));
  }

 private:
  // `otherwise`: the reason where libtiff gives none.
  Error failure(const char* otherwise) const {
    if (stream_.ended) return truncated(source_, "TIFF");
    return corrupt(source_, "TIFF", stream_.message.empty() ? otherwise : stream_.message);
  }

  template <typename T>
  T field(std::uint32_t tag, T otherwise) const {
    T value = otherwise;
    return TIFFGetFieldDefaulted(tiff_.get(), tag, &value) != 0 ? value : otherwise;
  }

  DecodedPicture finish(Image image) const {
    std::uint16_t tag = 0;
    if (TIFFGetField(tiff_.get(), TIFFTAG_ORIENTATION, &tag) != 0) {
      return {std::move(image), tag >= 1 && tag <= 8 ? tag : 1};
    }
    std::uint32_t size = 0;
    const char* xmp = nullptr;
    TIFFGetField(tiff_.get(), TIFFTAG_XMLPACKET, &size, &xmp);
    return {std::move(image), find_orientation({}, {xmp, xmp ? size : 0})};
  }

  void read_layout(std::uint16_t photometric) {
    layout_.photometric = photometric;
    layout_.bits = field<std::uint16_t>(TIFFTAG_BITSPERSAMPLE, 1);
    layout_.samples = field<std::uint16_t>(TIFFTAG_SAMPLESPERPIXEL, 1);
    layout_.format = field<std::uint16_t>(TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
    layout_.separate = layout_.samples > 1 &&
                       field<std::uint16_t>(TIFFTAG_PLANARCONFIG, 1) == PLANARCONFIG_SEPARATE;
    std::uint16_t extra_count = 0;
    const std::uint16_t* extras = nullptr;
    TIFFGetFieldDefaulted(tiff_.get(), TIFFTAG_EXTRASAMPLES, &extra_count, &extras);
    layout_.premultiplied = extra_count > 0 && extras[0] == EXTRASAMPLE_ASSOCALPHA;
    layout_.tiled = TIFFIsTiled(tiff_.get()) != 0;
    if (layout_.tiled) {
      layout_.block_height = field<std::uint32_t>(TIFFTAG_TILELENGTH, 0);
      layout_.block_width = field<std::uint32_t>(TIFFTAG_TILEWIDTH, 0);
      check_size(source_, layout_.block_height, layout_.block_width);
      check_padding();
    } else {
      layout_.block_height = std::clamp<std::uint32_t>(
          field<std::uint32_t>(TIFFTAG_ROWSPERSTRIP, layout_.height), 1, layout_.height);
      layout_.block_width = layout_.width;
    }
    set_kind();
  }

  // All tiles are decoded whole, and where they stick far out of the picture, that is work which
  // the picture's size doesn't bound.
  void check_padding() const {
    const std::int64_t height = padded(layout_.height, layout_.block_height);
    const std::int64_t width = padded(layout_.width, layout_.block_width);
    if (height / 4 <= source_.max_pixels / width) return;
    throw corrupt(source_, "TIFF",
                  concat("tiles of ", layout_.block_width, " × ", layout_.block_height, " for ",
                         layout_.width, " × ", layout_.height, " pixels"));
  }

  void set_kind() {
    bool known = false;
    const std::uint16_t bits = layout_.bits;
    const bool is_uint = layout_.format == SAMPLEFORMAT_UINT;
    switch (layout_.photometric) {
      case PHOTOMETRIC_MINISWHITE:
      case PHOTOMETRIC_MINISBLACK:
        layout_.kind = Kind::kGray;
        known = (is_uint && (bits == 1 || bits == 2 || bits == 4 || bits == 12)) || bits == 8 ||
                (bits == 16 && layout_.format != SAMPLEFORMAT_IEEEFP) || bits == 32;
        break;
      case PHOTOMETRIC_RGB:
        layout_.kind = Kind::kRgb;
        layout_.colors = 3;
        known = is_uint && (bits == 8 || bits == 16);
        break;
      case PHOTOMETRIC_PALETTE:
        layout_.kind = Kind::kPalette;
        known = is_uint && (bits == 1 || bits == 2 || bits == 4 || bits == 8);
        break;
      case PHOTOMETRIC_SEPARATED:
        layout_.kind = Kind::kCmyk;
        layout_.colors = 4;
        known = is_uint && (bits == 8 || bits == 16);
        break;
      default:
        break;
    }
    if (known && layout_.samples >= layout_.colors && layout_.samples <= 8) {
      layout_.premultiplied = layout_.premultiplied && layout_.samples > layout_.colors;
      return;
    }
    throw unsupported(
        source_, "TIFF",
        concat("photometric interpretation ", layout_.photometric, " with ", layout_.samples,
               " samples of ", bits, " bits, format ", layout_.format));
  }

  Image read_blocks(std::uint16_t photometric) {
    read_layout(photometric);
    const auto palette = layout_.kind == Kind::kPalette ? read_palette() : Palette();
    const tmsize_t size = layout_.tiled ? TIFFTileSize(tiff_.get()) : TIFFStripSize(tiff_.get());
    if (size <= 0 || size > source_.max_pixels * 8) {
      throw unsupported(source_, "TIFF", concat("blocks of ", size, " bytes"));
    }
    const int planes = layout_.separate ? used_samples() : 1;
    std::vector<std::vector<std::uint8_t>> blocks(planes, std::vector<std::uint8_t>(size));
    Image image = make_canvas(layout_.height, layout_.width);
    for (std::uint32_t top = 0; top < layout_.height; top += layout_.block_height) {
      for (std::uint32_t left = 0; left < layout_.width; left += layout_.block_width) {
        for (int plane = 0; plane < planes; ++plane) read_block(top, left, plane, blocks[plane]);
        write_block(blocks, top, left, palette, image);
      }
    }
    return image;
  }

  // Samples of a pixel that are looked at: the colours, and alpha where it was multiplied in.
  std::uint16_t used_samples() const { return layout_.colors + (layout_.premultiplied ? 1 : 0); }

  void read_block(std::uint32_t top, std::uint32_t left, int plane,
                  std::vector<std::uint8_t>& block) {
    const auto sample = static_cast<std::uint16_t>(plane);
    TIFF* tiff = tiff_.get();
    const auto size = static_cast<tmsize_t>(block.size());
    const tmsize_t got =
        layout_.tiled
            ? TIFFReadEncodedTile(tiff, TIFFComputeTile(tiff, left, top, 0, sample), block.data(),
                                  size)
            : TIFFReadEncodedStrip(tiff, TIFFComputeStrip(tiff, top, sample), block.data(), size);
    const tmsize_t row = layout_.tiled ? TIFFTileRowSize(tiff) : TIFFScanlineSize(tiff);
    const std::uint32_t rows = std::min(layout_.block_height, layout_.height - top);
    if (got < row * static_cast<tmsize_t>(rows)) throw failure("too few pixels");
  }

  Palette read_palette() const {
    Palette palette;
    std::uint16_t* red = nullptr;
    std::uint16_t* green = nullptr;
    std::uint16_t* blue = nullptr;
    if (TIFFGetField(tiff_.get(), TIFFTAG_COLORMAP, &red, &green, &blue) == 0) {
      throw corrupt(source_, "TIFF", "no palette");
    }
    for (std::size_t i = 0; i < std::size_t{1} << layout_.bits; ++i) {
      palette.colors[i] = {static_cast<std::uint8_t>(red[i] >> 8),
                           static_cast<std::uint8_t>(green[i] >> 8),
                           static_cast<std::uint8_t>(blue[i] >> 8)};
    }
    return palette;
  }

  void write_block(const std::vector<std::vector<std::uint8_t>>& blocks, std::uint32_t top,
                   std::uint32_t left, const Palette& palette, Image& image) const {
    const tmsize_t stride =
        layout_.tiled ? TIFFTileRowSize(tiff_.get()) : TIFFScanlineSize(tiff_.get());
    const std::uint32_t rows = std::min(layout_.block_height, layout_.height - top);
    const std::uint32_t columns = std::min(layout_.block_width, layout_.width - left);
    const std::size_t used = used_samples();
    std::vector<std::uint8_t> narrow(columns * used);
    for (std::uint32_t y = 0; y < rows; ++y) {
      std::uint8_t* out = narrow.data();
      for (std::size_t x = 0; x < columns; ++x) {
        for (std::size_t s = 0; s < used; ++s) {
          const auto& block = blocks[layout_.separate ? s : 0];
          const std::size_t index = layout_.separate ? x : x * layout_.samples + s;
          *out++ = sample(block.data() + y * stride, index);
        }
      }
      if (layout_.premultiplied) divide_by_alpha(narrow, columns);
      write_row(narrow.data(), columns, palette,
                image.pixels.data() + ((top + y) * image.width + left) * 3);
    }
  }

  // One value of a row, brought to 8 bits (an index stays as it is).
  std::uint8_t sample(const std::uint8_t* row, std::size_t index) const {
    switch (layout_.bits) {
      case 8:
        return positive(row[index]);
      case 12:
        return clip((row[index * 3 / 2] << 8 | row[index * 3 / 2 + 1]) >> (index % 2 == 0 ? 4 : 0) &
                    0xFFF);
      case 16:
        return sample_16(row, index);
      case 32:
        return sample_32(row, index);
      default:
        break;
    }
    const std::size_t per_byte = 8U / layout_.bits;
    const unsigned most = (1U << layout_.bits) - 1;
    const auto shift = (per_byte - 1 - index % per_byte) * layout_.bits;
    const unsigned value = row[index / per_byte] >> shift & most;
    if (layout_.kind == Kind::kPalette) return static_cast<std::uint8_t>(value);
    return positive(static_cast<std::uint8_t>(value * 255 / most));
  }

  std::uint8_t positive(std::uint8_t value) const {
    return layout_.photometric == PHOTOMETRIC_MINISWHITE ? 255 - value : value;
  }

  std::uint8_t sample_16(const std::uint8_t* row, std::size_t index) const {
    std::uint16_t value = 0;
    std::memcpy(&value, row + index * 2, sizeof value);
    if (layout_.kind != Kind::kGray) return static_cast<std::uint8_t>(value >> 8);
    return clip(layout_.format == SAMPLEFORMAT_INT ? static_cast<std::int16_t>(value) : value);
  }

  std::uint8_t sample_32(const std::uint8_t* row, std::size_t index) const {
    if (layout_.format == SAMPLEFORMAT_IEEEFP) {
      float value = 0;
      std::memcpy(&value, row + index * 4, sizeof value);
      if (!(value > 0)) return 0;
      return value >= 255 ? 255 : static_cast<std::uint8_t>(value);
    }
    std::int32_t value = 0;  // Pillow's integers have a sign
    std::memcpy(&value, row + index * 4, sizeof value);
    return clip(value);
  }

  static std::uint8_t clip(std::int32_t value) {
    return static_cast<std::uint8_t>(std::clamp(value, 0, 255));
  }

  // [columns, colors + 1] → [columns, colors], in place
  void divide_by_alpha(std::vector<std::uint8_t>& samples, std::size_t columns) const {
    std::uint8_t* out = samples.data();
    const std::uint8_t* pixel = samples.data();
    for (std::size_t x = 0; x < columns; ++x, pixel += layout_.colors + 1) {
      const int alpha = pixel[layout_.colors];
      for (std::size_t s = 0; s < layout_.colors; ++s) {
        *out++ = alpha == 255 ? pixel[s] : alpha == 0 ? 0 : clip(pixel[s] * 255 / alpha);
      }
    }
  }

  void write_row(const std::uint8_t* samples, std::size_t columns, const Palette& palette,
                 std::uint8_t* out) const {
    const auto size = static_cast<std::int64_t>(columns);
    switch (layout_.kind) {
      case Kind::kGray:
        return write_gray(samples, size, out);
      case Kind::kPalette:
        return write_indexed(samples, size, palette, out);
      case Kind::kCmyk:
        return write_cmyk(samples, size, out);
      case Kind::kRgb:
        std::copy_n(samples, columns * 3, out);
    }
  }

  // Subsampled colours are libtiff's to put together.
  Image read_ycbcr() {
    char reason[1024] = "";
    TIFFRGBAImage reader = {};
    if (TIFFRGBAImageOK(tiff_.get(), reason) == 0 ||
        TIFFRGBAImageBegin(&reader, tiff_.get(), 1, reason) == 0) {
      throw unsupported(source_, "TIFF", reason);
    }
    const std::unique_ptr<TIFFRGBAImage, decltype(&TIFFRGBAImageEnd)> end(&reader,
                                                                          TIFFRGBAImageEnd);
    reader.orientation = ORIENTATION_TOPLEFT;
    reader.req_orientation = ORIENTATION_TOPLEFT;
    Image image = make_canvas(layout_.height, layout_.width);
    std::vector<std::uint32_t> raster(std::size_t{layout_.width} * layout_.height);
    if (TIFFRGBAImageGet(&reader, raster.data(), layout_.width, layout_.height) == 0) {
      throw failure("too few pixels");
    }
    std::uint8_t* out = image.pixels.data();
    for (const std::uint32_t pixel : raster) {
      *out++ = static_cast<std::uint8_t>(TIFFGetR(pixel));
      *out++ = static_cast<std::uint8_t>(TIFFGetG(pixel));
      *out++ = static_cast<std::uint8_t>(TIFFGetB(pixel));
    }
    return image;
  }

  const PictureSource& source_;
  Stream stream_;
  std::unique_ptr<TIFF, CloseTiff> tiff_;
  Layout layout_;
};

}  // namespace

DecodedPicture decode_tiff(const PictureSource& source) {
  return TiffReader(source).read();
}

}  // namespace vlm::data

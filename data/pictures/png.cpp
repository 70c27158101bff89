// PNG through libpng. Indices and grey values are widened here rather than by the library, so that
// palettes too short and 16-bit grey come out as in Pillow. Transparency is dropped.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <new>
#include <vector>

#include "data/pictures/decoder.h"
#include "data/pictures/orientation.h"

namespace vlm::data {
namespace {

// libpng leaves an error by longjmp, so nothing between setjmp and the library may own memory: the
// steps below use only this.
struct Session {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string_view unread;     // bytes not read yet
  bool ended = false;          // asked for bytes past the end
  bool ended_cleanly = false;  // … where a chunk would have started
  char message[128] = {};
  png_bytepp rows = nullptr;
};

void on_error(png_structp png, png_const_charp message) {
  auto& session = *static_cast<Session*>(png_get_error_ptr(png));
  std::strncpy(session.message, message, sizeof session.message - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, std::size_t size) {
  constexpr std::size_t kChunkHeader = 8;
  auto& session = *static_cast<Session*>(png_get_io_ptr(png));
  if (session.unread.size() < size) {
    session.ended = true;
    session.ended_cleanly = size == kChunkHeader;
    png_error(png, "truncated");
  }
  std::memcpy(out, session.unread.data(), size);
  session.unread.remove_prefix(size);
}

void read_header(Session& session) {
  png_read_info(session.png, session.info);
}

// Rows of: RGB; grey of 8 or 16 bits; or indices, one a byte.
void start_pixels(Session& session) {
  const int type = png_get_color_type(session.png, session.info);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_packing(session.png);
  if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(session.png);
  if (type != PNG_COLOR_TYPE_GRAY) png_set_strip_16(session.png);  // the high byte
  if ((type & PNG_COLOR_MASK_ALPHA) != 0) png_set_strip_alpha(session.png);
  png_set_interlace_handling(session.png);
  png_read_update_info(session.png, session.info);
}

void read_pixels(Session& session) {
  png_read_image(session.png, session.rows);
}

void read_end(Session& session) {
  png_read_end(session.png, session.info);
}

// libpng allocates what the header of a chunk promises before it reads the chunk, so a promise past
// the end of the file is refused here.
void check_chunks(const PictureSource& source) {
  constexpr std::size_t kSignature = 8;
  constexpr std::size_t kHeader = 8;
  constexpr std::size_t kChecksum = 4;
  std::string_view unread = source.bytes.substr(kSignature);
  while (unread.size() >= kHeader && unread.substr(4, 4) != "IEND") {
    std::size_t length = 0;
    for (const char byte : unread.substr(0, 4))
      length = length << 8 | static_cast<std::uint8_t>(byte);
    unread.remove_prefix(kHeader);
    if (length > unread.size()) throw truncated(source, "PNG");
    unread.remove_prefix(std::min(length + kChecksum, unread.size()));
  }
}

class PngReader {
 public:
  explicit PngReader(const PictureSource& source) : source_(source) {
    session_.unread = source.bytes;
    session_.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &session_, on_error, on_warning);
    session_.info = png_create_info_struct(session_.png);
    if (!session_.info) throw std::bad_alloc();
    png_set_read_fn(session_.png, &session_, on_read);
    png_set_user_limits(session_.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check_size is ours
    // Texts of a few kB unpack to at most 8 MB each, which libpng bounds, and to 64 of them.
    png_set_chunk_cache_max(session_.png, 64);
  }
  ~PngReader() { png_destroy_read_struct(&session_.png, &session_.info, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  DecodedPicture read() {
    require(run(read_header));
    const std::int64_t height = png_get_image_height(session_.png, session_.info);
    const std::int64_t width = png_get_image_width(session_.png, session_.info);
    check_size(source_, height, width);
    require(run(start_pixels));
    Image image = read_image(height, width);
    // Metadata may follow the pixels. Pillow takes a file that ends without an end marker.
    require(run(read_end) || session_.ended_cleanly);
    return {std::move(image), orientation()};
  }

 private:
  bool run(void (*step)(Session&)) {
    if (setjmp(png_jmpbuf(session_.png)) != 0) return false;
    step(session_);
    return true;
  }

  void require(bool success) const {
    if (success) return;
    if (session_.ended) throw truncated(source_, "PNG");
    throw corrupt(source_, "PNG", session_.message);
  }

  Image read_image(std::int64_t height, std::int64_t width) {
    Image image = make_canvas(height, width);
    const std::int64_t row_bytes =
        static_cast<std::int64_t>(png_get_rowbytes(session_.png, session_.info));
    const bool is_rgb = row_bytes == width * 3;
    std::vector<std::uint8_t> narrow(is_rgb ? 0 : height * row_bytes);
    std::uint8_t* first = is_rgb ? image.pixels.data() : narrow.data();
    std::vector<png_bytep> rows(height);
    for (std::int64_t y = 0; y < height; ++y) rows[y] = first + y * row_bytes;
    session_.rows = rows.data();
    require(run(read_pixels));
    if (!is_rgb) widen(narrow.data(), image);
    return image;
  }

  void widen(std::uint8_t* in, Image& image) const {
    const std::int64_t size = image.height * image.width;
    std::uint8_t* out = image.pixels.data();
    if (png_get_color_type(session_.png, session_.info) == PNG_COLOR_TYPE_PALETTE) {
      return write_indexed(in, size, palette(), out);
    }
    if (png_get_bit_depth(session_.png, session_.info) == 16) {
      // Pillow clips 16-bit grey, it does not scale: all but the darkest becomes white.
      for (std::int64_t i = 0; i < size; ++i) in[i] = in[2 * i] == 0 ? in[2 * i + 1] : 255;
    }
    write_gray(in, size, out);
  }

  Palette palette() const {
    Palette palette;
    png_colorp colors = nullptr;
    int count = 0;
    png_get_PLTE(session_.png, session_.info, &colors, &count);
    for (int i = 0; i < count; ++i) {
      palette.colors[i] = {colors[i].red, colors[i].green, colors[i].blue};
    }
    return palette;
  }

  int orientation() const {
    std::string exif = raw_profile();
    png_bytep data = nullptr;
    png_uint_32 size = 0;
    if (png_get_eXIf_1(session_.png, session_.info, &size, &data) != 0) {
      exif.assign(reinterpret_cast<const char*>(data), size);
    }
    return find_orientation(exif, text("XML:com.adobe.xmp"));
  }

  std::string_view text(const char* key) const {
    png_textp texts = nullptr;
    const int count = png_get_text(session_.png, session_.info, &texts, nullptr);
    for (int i = 0; i < count; ++i) {
      if (std::strcmp(texts[i].key, key) == 0 && texts[i].text) return texts[i].text;
    }
    return {};
  }

  // EXIF as ImageMagick writes it into older files: a line feed, "exif", the size, then hex digits
  // in lines.
  std::string raw_profile() const {
    std::string_view profile = text("Raw profile type exif");
    for (int line = 0; line < 3; ++line) {
      const auto end = profile.find('\n');
      if (end == profile.npos) return {};
      profile.remove_prefix(end + 1);
    }
    std::string bytes;
    int high = -1;
    for (const char digit : profile) {
      const std::size_t value = std::string_view("0123456789abcdef").find(digit);
      if (value == std::string_view::npos) continue;
      if (high >= 0) bytes.push_back(static_cast<char>(high * 16 + static_cast<int>(value)));
      high = high >= 0 ? -1 : static_cast<int>(value);
    }
    return bytes;
  }

  const PictureSource& source_;
  Session session_;
};

}  // namespace

DecodedPicture decode_png(const PictureSource& source) {
  check_chunks(source);
  return PngReader(source).read();
}

}  // namespace vlm::data

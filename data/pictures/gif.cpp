// GIF through giflib: the first frame on its canvas. As in Pillow, what the frame leaves free is
// the transparent index's colour (index 0 where there is none), never the background colour, and a
// frame that sticks out makes the canvas larger.
#include <gif_lib.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "data/pictures/decoder.h"

namespace vlm::data {
namespace {

int on_read(GifFileType* gif, GifByteType* out, int size) {
  auto& unread = *static_cast<std::string_view*>(gif->UserData);
  const auto count = std::min(unread.size(), static_cast<std::size_t>(size));
  std::memcpy(out, unread.data(), count);
  unread.remove_prefix(count);
  return static_cast<int>(count);
}

struct CloseGif {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};

class GifReader {
 public:
  explicit GifReader(const PictureSource& source) : source_(source), rest_(source.bytes) {
    constexpr std::size_t kHeader = 13;
    if (source.bytes.size() < kHeader) throw truncated(source, "GIF");
    check_size(source, number(8), number(6));
    int error = 0;
    gif_.reset(DGifOpen(&rest_, on_read, &error));
    if (!gif_) throw failure(error);
  }

  DecodedPicture read() {
    find_frame();
    const GifImageDesc& frame = gif_->Image;
    check_size(source_, frame.Height, frame.Width);
    const std::int64_t height = std::max(gif_->SHeight, frame.Top + frame.Height);
    const std::int64_t width = std::max(gif_->SWidth, frame.Left + frame.Width);
    check_size(source_, height, width);
    std::vector<GifByteType> indices(height * width, transparent_);
    read_frame(indices.data() + frame.Top * width + frame.Left, width);
    Image image = make_canvas(height, width);
    const ColorMapObject* map = gif_->Image.ColorMap ? gif_->Image.ColorMap : gif_->SColorMap;
    if (map) {
      write_indexed(indices.data(), height * width, to_palette(*map), image.pixels.data());
    } else {
      write_gray(indices.data(), height * width, image.pixels.data());
    }
    return {std::move(image)};
  }

 private:
  // Two little-endian bytes at `at`, which the file has.
  int number(std::size_t at) const {
    return static_cast<std::uint8_t>(source_.bytes[at]) |
           static_cast<std::uint8_t>(source_.bytes[at + 1]) << 8;
  }

  Error failure(int error) const {
    if (error == D_GIF_ERR_READ_FAILED || error == D_GIF_ERR_EOF_TOO_SOON) {
      return truncated(source_, "GIF");
    }
    const char* reason = GifErrorString(error);
    return corrupt(source_, "GIF", reason ? reason : "unknown reason");
  }

  void require(int result) const {
    if (result == GIF_ERROR) throw failure(gif_->Error);
  }

  // Reads up to the first frame's pixels.
  void find_frame() {
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    require(DGifGetRecordType(gif_.get(), &type));
    while (type != IMAGE_DESC_RECORD_TYPE) {
      if (type != EXTENSION_RECORD_TYPE) throw corrupt(source_, "GIF", "no frame");
      read_extension();
      require(DGifGetRecordType(gif_.get(), &type));
    }
    require(DGifGetImageDesc(gif_.get()));
  }

  // A block holds its size, then that many bytes.
  void read_extension() {
    int code = 0;
    GifByteType* block = nullptr;
    require(DGifGetExtension(gif_.get(), &code, &block));
    if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4 && (block[1] & 1) != 0) {
      transparent_ = block[4];
    }
    while (block) require(DGifGetExtensionNext(gif_.get(), &block));
  }

  void read_frame(GifByteType* first, std::int64_t stride) {
    const GifImageDesc& frame = gif_->Image;
    const auto read_line = [&](int y) {
      require(DGifGetLine(gif_.get(), first + y * stride, frame.Width));
    };
    if (!frame.Interlace) {
      for (int y = 0; y < frame.Height; ++y) read_line(y);
      return;
    }
    constexpr int kPasses[4][2] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};  // first line, step
    for (const auto& [start, step] : kPasses) {
      for (int y = start; y < frame.Height; y += step) read_line(y);
    }
  }

  static Palette to_palette(const ColorMapObject& map) {
    Palette palette;
    for (int i = 0; i < map.ColorCount; ++i) {
      palette.colors[i] = {map.Colors[i].Red, map.Colors[i].Green, map.Colors[i].Blue};
    }
    return palette;
  }

  const PictureSource& source_;
  std::string_view rest_;  // bytes not read yet
  std::unique_ptr<GifFileType, CloseGif> gif_;
  GifByteType transparent_ = 0;
};

}  // namespace

DecodedPicture decode_gif(const PictureSource& source) {
  return GifReader(source).read();
}

}  // namespace vlm::data

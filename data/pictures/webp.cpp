// WebP through libwebp; of an animation the first frame on its canvas, through libwebpdemux.
#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>

#include "data/pictures/decoder.h"
#include "data/pictures/orientation.h"

namespace vlm::data {
namespace {

using Demuxer = std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)>;
using Animation = std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)>;

std::string_view chunk(const WebPDemuxer* demuxer, const char* name) {
  WebPChunkIterator found;
  std::string_view bytes;
  if (WebPDemuxGetChunk(demuxer, name, 1, &found) != 0) {
    bytes = {reinterpret_cast<const char*>(found.chunk.bytes), found.chunk.size};
  }
  WebPDemuxReleaseChunkIterator(&found);
  return bytes;
}

// Decodes the frame's own bytes: given the whole file, libwebp reads on into the next chunk where
// the pixels' bytes run out, and finds nothing wrong.
bool read_still(const WebPDemuxer* demuxer, Image& image) {
  WebPIterator frame;
  const bool done =
      WebPDemuxGetFrame(demuxer, 1, &frame) != 0 &&
      WebPDecodeRGBInto(frame.fragment.bytes, frame.fragment.size, image.pixels.data(),
                        image.pixels.size(), static_cast<int>(image.width * 3)) != nullptr;
  WebPDemuxReleaseIterator(&frame);
  return done;
}

bool read_first_frame(const WebPData& data, Image& image) {
  const Animation animation(WebPAnimDecoderNew(&data, nullptr), WebPAnimDecoderDelete);
  std::uint8_t* rgba = nullptr;  // [height, width, 4], the decoder's own
  int timestamp = 0;
  if (!animation || WebPAnimDecoderGetNext(animation.get(), &rgba, &timestamp) == 0) return false;
  for (std::size_t i = 0; i < image.pixels.size(); i += 3, rgba += 4) {
    std::copy_n(rgba, 3, image.pixels.data() + i);
  }
  return true;
}

}  // namespace

DecodedPicture decode_webp(const PictureSource& source) {
  const WebPData data{reinterpret_cast<const std::uint8_t*>(source.bytes.data()),
                      source.bytes.size()};
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  const Demuxer demuxer(WebPDemuxPartial(&data, &state), WebPDemuxDelete);
  if (!demuxer) {
    if (state == WEBP_DEMUX_PARSING_HEADER) throw truncated(source, "WebP");
    throw corrupt(source, "WebP", "chunks that don't fit together");
  }
  const std::int64_t height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  const std::int64_t width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH);
  check_size(source, height, width);
  if (state != WEBP_DEMUX_DONE) throw truncated(source, "WebP");
  Image image = make_canvas(height, width);
  const bool is_animated =
      (WebPDemuxGetI(demuxer.get(), WEBP_FF_FORMAT_FLAGS) & ANIMATION_FLAG) != 0;
  if (!(is_animated ? read_first_frame(data, image) : read_still(demuxer.get(), image))) {
    throw corrupt(source, "WebP", "pixels that can't be decoded");
  }
  return {std::move(image),
          find_orientation(chunk(demuxer.get(), "EXIF"), chunk(demuxer.get(), "XMP "))};
}

}  // namespace vlm::data

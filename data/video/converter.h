// A decoded frame → the picture that a player would show.
//
//   AVFrame (any pixel format) ─► Converter ─► Image [H, W, 3] u8
//
// libswscale with the frame's own colour matrix and range (BT.601 and the format's range where it
// names none), stretched to square pixels, turned by the display matrix. At the stored size it
// takes the same path as PyAV's to_ndarray(format="rgb24"); scaled frames are bicubic. No tone
// mapping and no deinterlacing; alpha is left out, as by PyAV and by Pillow's convert("RGB").
#pragma once

#include <cstdint>
#include <string>

#include "data/video/av.h"
#include "data/video/frame_shape.h"
#include "vlm/image/image.h"

namespace vlm::data {

class Converter {
 public:
  // Frame properties of the stream, used where a frame has none of its own. max_pixels bounds the
  // size after stretching.
  Converter(AVStream& stream, std::int64_t max_pixels, std::string where);

  // long_edge > 0: scaled down so that the longer side has that many pixels. Throws Error for a
  // format that libswscale can't read.
  Image convert(const AVFrame& frame, std::int64_t long_edge);

  // Size of convert(frame, 0).
  FrameShape shape_of(const AVFrame& frame) const;

 private:
  int orientation_of(const AVFrame& frame) const;
  FrameShape square_size(const AVFrame& frame) const;
  void prepare(const AVFrame& frame, const FrameShape& target);

  AVRational stream_aspect_;
  int stream_orientation_ = 1;
  std::int64_t max_pixels_;
  std::string where_;
  AvOwner<SwsContext> scaler_;
  AvOwner<AVFrame> target_;
  std::string prepared_for_;
};

}  // namespace vlm::data

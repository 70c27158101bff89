#include "data/video/converter.h"

extern "C" {
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>
}

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "data/pictures/orientation.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// A stretch beyond this is damage, not a format.
constexpr double kMaxStretch = 8;

// EXIF's number for a display matrix; 1 for what is no turn by a right angle.
int orientation_of_matrix(const std::int32_t* m) {
  const std::int64_t a = m[0], b = m[1], c = m[3], d = m[4];
  if (std::abs(a) > std::abs(b)) {
    if (a > 0) return d < 0 ? 4 : 1;
    return d < 0 ? 3 : 2;
  }
  if (b == 0 || c == 0) return 1;
  if (b > 0) return c > 0 ? 5 : 6;
  return c > 0 ? 8 : 7;
}

const std::int32_t* stream_matrix(AVStream& stream) {
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
  const AVPacketSideData* data =
      av_packet_side_data_get(stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  const bool whole = data && data->size >= 9 * sizeof(std::int32_t);
  return whole ? reinterpret_cast<const std::int32_t*>(data->data) : nullptr;
#else
  std::size_t size = 0;
  const std::uint8_t* data = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  return data && size >= 9 * sizeof(std::int32_t) ? reinterpret_cast<const std::int32_t*>(data)
                                                  : nullptr;
#endif
}

int swscale_matrix(AVColorSpace space) {
  switch (space) {
    case AVCOL_SPC_BT709:
      return SWS_CS_ITU709;
    case AVCOL_SPC_FCC:
      return SWS_CS_FCC;
    case AVCOL_SPC_SMPTE240M:
      return SWS_CS_SMPTE240M;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
      return SWS_CS_BT2020;
    default:
      return SWS_CS_ITU601;
  }
}

bool has_full_range(const AVFrame& frame) {
  if (frame.color_range == AVCOL_RANGE_JPEG) return true;
  if (frame.color_range == AVCOL_RANGE_MPEG) return false;
  const char* name = av_get_pix_fmt_name(static_cast<AVPixelFormat>(frame.format));
  return name && std::strncmp(name, "yuvj", 4) == 0;
}

}  // namespace

Converter::Converter(AVStream& stream, std::int64_t max_pixels, std::string where)
    : stream_aspect_(stream.sample_aspect_ratio.num > 0 ? stream.sample_aspect_ratio
                                                        : stream.codecpar->sample_aspect_ratio),
      max_pixels_(max_pixels),
      where_(std::move(where)) {
  if (const std::int32_t* matrix = stream_matrix(stream)) {
    stream_orientation_ = orientation_of_matrix(matrix);
  }
}

int Converter::orientation_of(const AVFrame& frame) const {
  const AVFrameSideData* data = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
  if (!data || data->size < 9 * sizeof(std::int32_t)) return stream_orientation_;
  return orientation_of_matrix(reinterpret_cast<const std::int32_t*>(data->data));
}

// The shorter side is drawn longer, so that no pixel is lost.
FrameShape Converter::square_size(const AVFrame& frame) const {
  const FrameShape stored{frame.width, frame.height};
  const AVRational ratio = stream_aspect_.num > 0 ? stream_aspect_ : frame.sample_aspect_ratio;
  if (ratio.num <= 0 || ratio.den <= 0) return stored;
  const double aspect = av_q2d(ratio);
  if (aspect > kMaxStretch || aspect < 1 / kMaxStretch) return stored;
  FrameShape shown = stored;
  if (aspect > 1) shown.width = std::llround(static_cast<double>(stored.width) * aspect);
  if (aspect < 1) shown.height = std::llround(static_cast<double>(stored.height) / aspect);
  return shown.width <= max_pixels_ / shown.height ? shown : stored;
}

FrameShape Converter::shape_of(const AVFrame& frame) const {
  const FrameShape shape = square_size(frame);
  return orientation_of(frame) > 4 ? FrameShape{shape.height, shape.width} : shape;
}

void Converter::prepare(const AVFrame& frame, const FrameShape& target) {
  const std::string key =
      concat(frame.width, ' ', frame.height, ' ', frame.format, ' ', frame.colorspace, ' ',
             frame.color_range, ' ', target.width, ' ', target.height);
  if (scaler_ && key == prepared_for_) return;
  const bool same_size = target.width == frame.width && target.height == frame.height;
  const int flags = same_size ? SWS_BILINEAR : SWS_BICUBIC | SWS_ACCURATE_RND;
  scaler_.reset(sws_getContext(frame.width, frame.height, static_cast<AVPixelFormat>(frame.format),
                               static_cast<int>(target.width), static_cast<int>(target.height),
                               AV_PIX_FMT_RGB24, flags, nullptr, nullptr, nullptr));
  if (!scaler_) {
    const char* name = av_get_pix_fmt_name(static_cast<AVPixelFormat>(frame.format));
    throw Error({.what = "unsupported pixel format", .where = where_, .got = name ? name : "none"});
  }
  constexpr int kOne = 1 << 16;
  // Formats without a matrix (RGB, grey) refuse this; they need none.
  sws_setColorspaceDetails(scaler_.get(), sws_getCoefficients(swscale_matrix(frame.colorspace)),
                           has_full_range(frame), sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, kOne,
                           kOne);
  target_ = make_frame();
  target_->format = AV_PIX_FMT_RGB24;
  target_->width = static_cast<int>(target.width);
  target_->height = static_cast<int>(target.height);
  if (av_frame_get_buffer(target_.get(), 0) < 0) throw std::bad_alloc();
  prepared_for_ = key;
}

Image Converter::convert(const AVFrame& frame, std::int64_t long_edge) {
  const FrameShape shape = shrink(square_size(frame), long_edge);
  prepare(frame, shape);
  const int rows = sws_scale(scaler_.get(), frame.data, frame.linesize, 0, frame.height,
                             target_->data, target_->linesize);
  if (rows != shape.height) {
    throw Error({.what = "a frame can't be converted to RGB", .where = where_});
  }
  Image image{shape.height, shape.width, {}};
  const std::int64_t row_bytes = shape.width * 3;
  image.pixels.resize(static_cast<std::size_t>(shape.height * row_bytes));
  for (std::int64_t y = 0; y < shape.height; ++y) {
    std::memcpy(image.pixels.data() + y * row_bytes, target_->data[0] + y * target_->linesize[0],
                static_cast<std::size_t>(row_bytes));
  }
  return upright(std::move(image), orientation_of(frame));
}

}  // namespace vlm::data

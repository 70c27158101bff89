#include "data/video/decoder.h"

#include <algorithm>
#include <new>
#include <thread>

#include "vlm/core/error.h"

namespace vlm::data {
namespace {

constexpr int kMaxErrorsInARow = 256;

// Codecs whose bitstream says of a frame, bindingly, that no other is predicted from it.
bool marks_unneeded(AVCodecID codec) {
  return codec == AV_CODEC_ID_H264 || codec == AV_CODEC_ID_MPEG2VIDEO ||
         codec == AV_CODEC_ID_MPEG1VIDEO || codec == AV_CODEC_ID_MPEG4;
}

}  // namespace

Decoder::Decoder(const AVStream& stream, const VideoLimits& limits, const std::string& where) {
  const AVCodecParameters& parameters = *stream.codecpar;
  const AVCodec* codec = avcodec_find_decoder(parameters.codec_id);
  if (!codec) {
    const bool known = parameters.codec_id != AV_CODEC_ID_NONE;
    char tag[AV_FOURCC_MAX_STRING_SIZE] = "";
    av_fourcc_make_string(tag, parameters.codec_tag);
    throw Error({.what = "unsupported video codec",
                 .where = where,
                 .got = known ? avcodec_get_name(parameters.codec_id) : tag});
  }
  context_.reset(avcodec_alloc_context3(codec));
  if (!context_) throw std::bad_alloc();
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  int code = avcodec_parameters_to_context(context_.get(), &parameters);
  context_->pkt_timebase = stream.time_base;
  context_->max_pixels = limits.max_pixels;
  context_->thread_count = std::clamp(limits.threads, 1, cores);
  if (code >= 0) code = avcodec_open2(context_.get(), codec, nullptr);
  if (code < 0) {
    throw Error({.what = "can't open the decoder",
                 .where = where,
                 .got = std::string(codec->name) + ": " + av_reason(code)});
  }
  can_skip_ = marks_unneeded(parameters.codec_id);
}

bool Decoder::send(const AVPacket* packet) {
  return avcodec_send_packet(context_.get(), packet) >= 0;
}

bool Decoder::receive(AVFrame& frame) {
  // An error is that of one damaged packet; frames behind it may still come.
  for (int errors = 0; errors < kMaxErrorsInARow; ++errors) {
    const int code = avcodec_receive_frame(context_.get(), &frame);
    if (code >= 0) return true;
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return false;
  }
  return false;
}

void Decoder::flush() {
  avcodec_flush_buffers(context_.get());
}

void Decoder::skip_unneeded(bool on) {
  if (can_skip_) context_->skip_frame = on ? AVDISCARD_NONREF : AVDISCARD_DEFAULT;
}

bool Decoder::is_intra_only() const {
  const AVCodecDescriptor* descriptor = avcodec_descriptor_get(context_->codec_id);
  return descriptor && (descriptor->props & AV_CODEC_PROP_INTRA_ONLY);
}

}  // namespace vlm::data

#include "data/video/decoder.h"

#include <algorithm>
#include <new>
#include <thread>
#include <utility>

#include "vlm/core/error.h"

namespace vlm::data {
namespace {

constexpr int kMaxErrorsInARow = 256;
constexpr std::size_t kMostKeysOnTheirWay = 64;  // more than any decoder holds back

bool is_flagged(const AVFrame& frame) {
  return frame.flags & AV_FRAME_FLAG_CORRUPT || frame.decode_error_flags != 0;
}

// Codecs whose bitstream says of a frame, bindingly, that no other is predicted from it.
bool marks_unneeded(AVCodecID codec) {
  return codec == AV_CODEC_ID_H264 || codec == AV_CODEC_ID_MPEG2VIDEO ||
         codec == AV_CODEC_ID_MPEG1VIDEO || codec == AV_CODEC_ID_MPEG4;
}

}  // namespace

FrameDecoder::FrameDecoder(const AVStream& stream, const VideoLimits& limits,
                           const std::string& where) {
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
  context_->err_recognition = AV_EF_CRCCHECK;  // checksums, where the stream has some
  context_->opaque = &messages_;               // which the contexts of its threads copy
  if (code >= 0) code = avcodec_open2(context_.get(), codec, nullptr);
  if (code < 0) {
    throw Error({.what = "can't open the decoder",
                 .where = where,
                 .got = std::string(codec->name) + ": " + av_reason(code)});
  }
  can_skip_ = marks_unneeded(parameters.codec_id);
}

bool FrameDecoder::send(const AVPacket* packet) {
  if (packet && packet->flags & AV_PKT_FLAG_KEY && packet->pts != AV_NOPTS_VALUE) {
    keys_.push_back({packet->pts, messages_.complaints});
    if (keys_.size() > kMostKeysOnTheirWay) keys_.pop_front();
  }
  if (packet && packet->flags & AV_PKT_FLAG_CORRUPT)
    ++messages_.complaints;  // a part of it was lost
  const bool is_taken = avcodec_send_packet(context_.get(), packet) >= 0;
  if (packet && !is_taken) is_broken_ = true;
  return is_taken;
}

bool FrameDecoder::receive(AVFrame& frame) {
  // An error is that of one damaged packet; frames behind it may still come.
  for (int errors = 0; errors < kMaxErrorsInARow; ++errors) {
    const int code = avcodec_receive_frame(context_.get(), &frame);
    if (code >= 0) {
      judge(frame);
      return true;
    }
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return false;
    is_broken_ = true;
  }
  return false;
}

void FrameDecoder::judge(const AVFrame& frame) {
  const bool flagged = is_flagged(frame);
  const bool heals = is_key(frame) && !flagged;
  is_broken_ = flagged || (is_broken_ && !heals);
  if (heals) {
    const auto known = std::find_if(keys_.begin(), keys_.end(),
                                    [&](const auto& key) { return key.pts == frame.pts; });
    // Complaints behind the first key frame are about frames that are shown before it, if any are:
    // what they are predicted from wasn't decoded.
    const bool is_first = !std::exchange(has_anchor_, true);
    complaints_before_ =
        known == keys_.end() || is_first ? messages_.complaints.load() : known->complaints;
    if (known != keys_.end()) keys_.erase(keys_.begin(), known + 1);
  }
  const bool is_doubtful = messages_.complaints > complaints_before_;
  health_ = is_broken_    ? FrameHealth::kDamaged
            : is_doubtful ? FrameHealth::kDoubtful
                          : FrameHealth::kWhole;
}

void FrameDecoder::flush() {
  avcodec_flush_buffers(context_.get());
  keys_.clear();
  complaints_before_ = messages_.complaints;
  is_broken_ = has_anchor_ = false;
}

void FrameDecoder::skip_unneeded(bool on) {
  if (can_skip_) context_->skip_frame = on ? AVDISCARD_NONREF : AVDISCARD_DEFAULT;
}

bool FrameDecoder::is_intra_only() const {
  const AVCodecDescriptor* descriptor = avcodec_descriptor_get(context_->codec_id);
  return descriptor && (descriptor->props & AV_CODEC_PROP_INTRA_ONLY);
}

bool is_key(const AVFrame& frame) {
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(58, 7, 100)
  const bool flagged = frame.flags & AV_FRAME_FLAG_KEY;
#else
  const bool flagged = frame.key_frame;
#endif
  return flagged || frame.pict_type == AV_PICTURE_TYPE_I;
}

}  // namespace vlm::data

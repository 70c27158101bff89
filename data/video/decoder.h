// One stream's decoder: packets in, frames out in display order, and whether they are damaged.
//
// The number of threads is bounded. The caller feeds packets and decides where decoding begins.
// Decoders fill missing parts of a picture with similar content and continue. A frame is damaged
// when the decoder flags it, or when an earlier picture failed and no key frame came since. Some
// decoders (HEVC) set no flag and only log errors: then frames up to the next key frame are
// doubtful, and also some before, because decoding runs ahead in threads.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "data/video/av.h"
#include "data/video/video_file.h"

namespace vlm::data {

enum class FrameHealth { kWhole, kDoubtful, kDamaged };

class FrameDecoder {
 public:
  // Throws Error for a codec that this FFmpeg has no decoder for; `where` names the file.
  FrameDecoder(const AVStream& stream, const VideoLimits& limits, const std::string& where);

  // Feeds a packet; false when its data couldn't be decoded, after which decoding may continue. A
  // null packet ends the stream, so that frames held back come out. Receive all frames before each
  // call.
  bool send(const AVPacket* packet);

  // Receives the next frame; false when the decoder needs more packets or has given all frames.
  bool receive(AVFrame& frame);

  // State of the frame that was received last.
  FrameHealth health() const { return health_; }
  // The decoder concealed missing parts of a picture. Its threads may fail to flag the picture
  // itself, but they report the concealment before it comes out.
  bool has_concealed() const { return messages_.concealments > 0; }
  // True after an undamaged key frame came out since the start or flush: frames that are damaged
  // after it are damaged in the file.
  bool has_anchor() const { return has_anchor_; }

  // Drops all state; the next packet may be any key frame.
  void flush();

  // While on, frames that no other frame needs are not decoded and don't come out. Has an effect
  // only for codecs where the other frames don't change by it.
  void skip_unneeded(bool on);

  // Every frame of the codec is a key frame.
  bool is_intra_only() const;

 private:
  // A key frame that was fed, and how many errors the decoder had reported before it.
  struct KeyOnItsWay {
    std::int64_t pts = 0;
    std::int64_t complaints = 0;
  };

  void judge(const AVFrame& frame);

  DecoderMessages messages_;
  AvOwner<AVCodecContext> context_;
  std::deque<KeyOnItsWay> keys_;
  std::int64_t complaints_before_ = 0;  // the last key frame that came out
  FrameHealth health_ = FrameHealth::kWhole;
  bool is_broken_ = false;  // a picture failed since the last key frame
  bool has_anchor_ = false;
  bool can_skip_ = false;
};

bool is_key(const AVFrame& frame);

}  // namespace vlm::data

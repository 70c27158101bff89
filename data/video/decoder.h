// One stream's decoder: packets in, frames out in display order, and what they are worth.
//
// Bounded threads. Knows nothing of files: who feeds it decides where decoding begins. Decoders
// fill what is missing with something like it and go on; a frame is damaged when the decoder flags
// it so, or when a picture before it failed and no key frame came since. Some decoders flag nothing
// and only complain (HEVC): then frames are doubtful up to the next key frame, and, as decoding
// runs ahead in threads, some frames before.
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

  // False when the packet's data couldn't be decoded, which may be no reason to stop. A null packet
  // says that no more come: what is held back comes out. Take all frames before each call.
  bool send(const AVPacket* packet);

  // False when it wants more packets, or has given all.
  bool receive(AVFrame& frame);

  // Of the frame that was received last.
  FrameHealth health() const { return health_; }
  // The decoder made up parts of a picture. Its threads may forget to flag that picture, but not to
  // say so before it comes out.
  bool has_concealed() const { return messages_.concealments > 0; }
  // A whole key frame came out since the start or flush: what is damaged is so in the file.
  bool has_anchor() const { return has_anchor_; }

  // Forgets all; the next packet may be any key frame.
  void flush();

  // While on, frames that no other needs are not decoded and don't come out. Only for codecs where
  // that leaves the others as they are; others decode all.
  void skip_unneeded(bool on);

  // Every frame of the codec stands for itself.
  bool is_intra_only() const;

 private:
  // A key frame on its way, and how often the decoder had complained before it.
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

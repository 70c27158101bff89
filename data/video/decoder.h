// One stream's decoder: packets in, frames out in display order.
//
// Bounded threads. Knows nothing of files: who feeds it decides where decoding begins.
#pragma once

#include <cstdint>
#include <string>

#include "data/video/av.h"
#include "data/video/video_file.h"

namespace vlm::data {

class Decoder {
 public:
  // Throws Error for a codec that this FFmpeg has no decoder for; `where` names the file.
  Decoder(const AVStream& stream, const VideoLimits& limits, const std::string& where);

  // False when the packet's data couldn't be decoded, which may be no reason to stop. A null packet
  // says that no more come: what is held back comes out. Take all frames before each call.
  bool send(const AVPacket* packet);

  // False when it wants more packets, or has given all.
  bool receive(AVFrame& frame);

  // Forgets all; the next packet may be any key frame.
  void flush();

  // While on, frames that no other needs are not decoded and don't come out. Only for codecs where
  // that leaves the others as they are; others decode all.
  void skip_unneeded(bool on);

  // Every frame of the codec stands for itself.
  bool is_intra_only() const;

 private:
  AvOwner<AVCodecContext> context_;
  bool can_skip_ = false;
};

}  // namespace vlm::data

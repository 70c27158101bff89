// A video's frames, decoded and processed in a thread of their own, a bounded number ahead of who
// encodes them.
//
//   path, VideoSampling ─► (thread: cache, else decode, process) ─► tiles [n, 3, S, S] … ─►
//   EndOfTake
//
// A take is what one prompt shows of the video: all of it, or a segment. One whose features are in
// the cache comes as its end alone: nothing is decoded then, nor is the file opened beyond what its
// digest needs. Memory doesn't grow with the length of the video, and with the number of frames
// only by their features.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "data/media/video_clip.h"
#include "infer/media/seen_video.h"
#include "infer/media/segments.h"
#include "infer/picture_features.h"
#include "vlm/models/processor.h"

namespace vlm::infer {

struct VideoOptions {
  data::VideoSampling sampling = {};
  std::optional<double> segment_s = {};  // a take for each segment; else one of the whole
};

struct VideoRequest {
  std::string path;  // "-" is standard input
  VideoOptions options = {};
};

struct EndOfTake {
  SeenVideo seen;
  Segment segment;      // of takes by segment
  at::Tensor features;  // [F, L, C] out of the cache; undefined: the tiles before are to be encoded
  std::string key;      // to keep these features under; empty: they can't be kept
  bool is_last = false;
};

class VideoStream {
 public:
  using Tiles = at::Tensor;
  using Stopped = std::monostate;  // a stop request (Ctrl-C) came
  using Piece = std::variant<Stopped, Tiles, EndOfTake>;

  // Processor and encoder must outlive the stream.
  VideoStream(VideoRequest request, const Processor& processor, PictureEncoder& encoder);
  ~VideoStream();  // ends the decoding
  VideoStream(const VideoStream&) = delete;
  VideoStream& operator=(const VideoStream&) = delete;

  // Tiles of the take at hand, as many as go through the encoder at once, or its end. Not to be
  // called behind the last take's end. Throws Error naming the file for what is wrong with it.
  Piece next();

 private:
  class Takes;

  void run();
  bool push(Piece piece);  // false: nobody wants more
  bool is_ready() const;

  const VideoRequest request_;
  const Processor& processor_;
  PictureEncoder& encoder_;
  const std::size_t at_once_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Piece> pieces_;  // tiles of one frame each, and ends
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace vlm::infer

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

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "data/media/video_clip.h"
#include "infer/media/picture_features.h"
#include "infer/media/seen_video.h"
#include "infer/media/segments.h"
#include "vlm/io/ordered_workers.h"
#include "vlm/models/processor.h"

namespace vlm::infer {

struct VideoStreamOptions {
  data::VideoSampling sampling = {};
  std::optional<double> segment_s = {};  // a take for each segment; else one of the whole
};

struct VideoRequest {
  std::string path;  // "-" is standard input
  VideoStreamOptions options = {};
};

struct EndOfTake {
  WatchedVideo seen;
  TimeSegment segment;  // of takes by segment
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
  // Tiles of the take at hand, as many as go through the encoder at once, or its end. Not to be
  // called behind the last take's end. Throws Error naming the file for what is wrong with it.
  Piece next();

 private:
  class Takes;
  struct Start {};                              // one job: the video
  using Pieces = OrderedWorkers<Start, Piece>;  // tiles of one frame each, and ends

  void run(Pieces::Output& output);

  const VideoRequest request_;
  const Processor& processor_;
  PictureEncoder& encoder_;
  const std::size_t at_once_;
  std::optional<EndOfTake> end_;  // of the tiles that were handed out last
  Pieces pieces_;
};

}  // namespace vlm::infer

// A video's frames, decoded and processed in a separate thread, a bounded number of frames ahead of
// the encoder.
//
//   path, VideoSampling ─► (thread: cache, else decode, process) ─► Pixels … ─► EndOfTake
//
// A take is the part of the video that one prompt shows: all of it, or a segment. If the features
// of a take are in the cache, only its EndOfTake comes, and the file is read for its digest only.
// Memory doesn't grow with the length of the video, and with the number of frames only by their
// features.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "data/media/video_clip.h"
#include "infer/media/picture_features.h"
#include "infer/media/seen_video.h"
#include "infer/media/segments.h"
#include "vlm/io/ordered_workers.h"
#include "vlm/models/interface/processor.h"

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
  at::Tensor features;  // [ΣL, W] out of the cache; undefined: the pixels before are to be encoded
  std::string key;      // for storing these features; empty: they can't be stored
  bool is_last = false;
};

class VideoStream {
 public:
  struct Waiting {};  // frames are still being decoded
  using Piece = std::variant<Waiting, Pixels, EndOfTake>;

  // Processor and encoder must outlive the stream.
  VideoStream(VideoRequest request, const Processor& processor, PictureEncoder& encoder);
  // Pixels of the current take, as many as the encoder takes at once, or its end; waits so long for
  // them. Don't call it after the end of the last take. Throws Error naming the file when it can't
  // be read.
  Piece next(std::chrono::milliseconds patience);

 private:
  class Takes;
  struct Start {};                              // one job: the video
  using Pieces = OrderedWorkers<Start, Piece>;  // pixels of a few frames each, and ends

  void run(Pieces::Output& output);

  const VideoRequest request_;
  const Processor& processor_;
  PictureEncoder& encoder_;
  const std::int64_t at_once_;
  std::vector<Pixels> parts_;     // decoded, for the next piece
  std::optional<EndOfTake> end_;  // of the take whose last pixels were returned
  Pieces pieces_;
};

}  // namespace vlm::infer

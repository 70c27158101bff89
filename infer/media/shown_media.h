// The media of one prompt, from their files to the features for the generator.
//
//   pictures, videos ─► ShownMedia ─► read (on the model's thread) ─► texts, PictureFeatures
//
// Pictures of a prompt without video stay pixels, which the generator encodes together with those
// of other prompts. With a video all features are made here: frames are encoded while later ones
// are being decoded. With segments, each read() reads the next segment of the video.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "infer/items/item.h"
#include "infer/media/video_stream.h"
#include "vlm/image/image.h"

namespace vlm::infer {

// How long a read may take.
struct ReadLimits {
  double time_limit_s = 0;  // of a take; 0: none
  // Asked between two pieces; true ends the read, and the media can't be read any more.
  std::function<bool()> should_stop = {};
};

enum class ReadState {
  kWaiting,  // frames are still being decoded
  kMore,     // a piece was encoded
  kWhole,    // the take is read
};

class ShownMedia {
 public:
  // Processor and encoder must outlive the media.
  ShownMedia(const Processor& processor, PictureEncoder& encoder)
      : processor_(&processor), encoder_(&encoder) {}

  // Adds media in the order of the prompt's parts. A picture is read in the call; a video begins to
  // be read in its thread. Throws Error naming the picture.
  void add(const MediaRef& medium, const VideoStreamOptions& options);
  void add(const Image& picture, bool is_whole = false);
  void add(VideoRequest video);

  // Without a video, processed() and features() need no read().
  bool has_videos() const { return has_videos_; }

  // Encodes the next take (video_stream.h) of each video, or, the first time, a piece more of it;
  // it waits so long for frames. False: it was to stop. Throws Error naming the file that can't be
  // read, or that takes longer than its limit.
  bool read(const ReadLimits& limits = {});
  ReadState read_piece(const ReadLimits& limits, std::chrono::milliseconds patience);
  // True when there is another take to read.
  bool has_more() const { return has_more_; }

  // The texts of the media, for Processor::encode_prompt.
  const ProcessedMedia& processed();
  // Null without media.
  std::shared_ptr<PictureFeatures> features();

  // What the last read() showed: one entry a video, in their order.
  const std::vector<WatchedVideo>& seen() const { return seen_; }
  const TimeSegment& segment() const { return segment_; }

 private:
  struct Part {
    ProcessedMedium medium;               // a video's pixels are never kept
    at::Tensor features;                  // of the take
    std::unique_ptr<VideoStream> video;   // null: a picture
    std::vector<at::Tensor> pieces = {};  // of a take that is being read
    bool is_read = false;                 // of this take
  };

  void begin_take();
  ReadState read_video(Part& part, std::chrono::milliseconds patience);
  void check_time(double time_limit_s) const;
  void join();

  const Processor* processor_;
  PictureEncoder* encoder_;
  std::vector<Part> parts_;
  bool has_videos_ = false, has_more_ = false, is_joined_ = false, is_reading_ = false;
  std::chrono::steady_clock::time_point begun_;  // the take
  ProcessedMedia processed_;
  std::shared_ptr<PictureFeatures> features_;
  std::vector<WatchedVideo> seen_;
  TimeSegment segment_;
};

}  // namespace vlm::infer

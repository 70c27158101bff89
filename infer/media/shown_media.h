// The media of one prompt, from their files to the features for the generator.
//
//   pictures, videos ─► ShownMedia ─► read (on the model's thread) ─► texts, PictureFeatures
//
// Pictures of a prompt without video stay pixels, which the generator encodes together with those
// of other prompts. With a video all features are made here: frames are encoded while later ones
// are being decoded. With segments, each read() reads the next segment of the video.
#pragma once

#include <memory>
#include <vector>

#include "infer/items/item.h"
#include "infer/media/video_stream.h"
#include "vlm/image/image.h"

namespace vlm::infer {

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

  // Encodes the next take (video_stream.h) of each video. False: a stop request came. Throws Error
  // naming the file that can't be read, or that takes longer than the limit in seconds (0: none).
  bool read(double time_limit_s = 0);
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
    ProcessedMedium medium;  // a video's pixels are never kept
    at::Tensor features;
    std::unique_ptr<VideoStream> video;  // null: a picture
  };

  bool read_video(Part& part, double time_limit_s);
  void join();

  const Processor* processor_;
  PictureEncoder* encoder_;
  std::vector<Part> parts_;
  bool has_videos_ = false, has_more_ = false, is_joined_ = false;
  ProcessedMedia processed_;
  std::shared_ptr<PictureFeatures> features_;
  std::vector<WatchedVideo> seen_;
  TimeSegment segment_;
};

}  // namespace vlm::infer

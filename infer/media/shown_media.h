// The media of one prompt, from their files to what the generator takes.
//
//   pictures, videos ─► ShownMedia ─► read (on the model's thread) ─► texts, PictureFeatures
//
// Pictures alone are left as tiles: the generator encodes them with those of other prompts. As soon
// as there is a video, features are made here: frames go through the vision encoder while later
// ones are being decoded. With segments, each read() takes the video's next one.
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

  // In the order of the prompt's parts. A picture is read now; a video begins to be. Throws Error
  // naming the picture.
  void add(const MediaRef& medium, const VideoStreamOptions& options);
  void add(const Image& picture, bool is_whole = false);
  void add(VideoRequest video);

  // No video among them: texts and features() are there without read().
  bool has_videos() const { return has_videos_; }

  // Encodes the videos' next takes. False: a stop request came. Throws Error naming the file that
  // can't be read, or when it takes longer than the limit (0: none).
  bool read(double time_limit_s = 0);
  // Another take is to come.
  bool has_more() const { return has_more_; }

  // What stands for the media in the prompt, for Processor::encode_prompt.
  const ProcessedMedia& processed();
  // Null without media.
  std::shared_ptr<PictureFeatures> features();

  // Of the takes read last: one a video, in their order.
  const std::vector<WatchedVideo>& seen() const { return seen_; }
  const TimeSegment& segment() const { return segment_; }

 private:
  struct Part {
    ProcessedMedium medium;  // a video's tiles are never kept
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

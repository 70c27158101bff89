// Texts of pictures and clips in a prompt, without making their pixels.
//
// Each picture is decoded once for its size, which is kept; of clips only the frame table is read.
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "data/media/media_ref.h"
#include "data/media/video_clip.h"
#include "vlm/models/interface/processor.h"

namespace vlm::data {

class MediaTexts {
 public:
  // `processor` must outlive this.
  MediaTexts(const Processor& processor, VideoSampling video)
      : processor_(processor), video_(std::move(video)) {}

  // Throws Error naming the medium when it can't be read.
  MediumText text_of(const MediaRef& medium);

 private:
  MediumText picture_text(const MediaRef& picture);
  MediumText video_text(const MediaRef& clip) const;

  const Processor& processor_;
  VideoSampling video_;
  std::mutex mutex_;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> sizes_;  // height, width by name
};

}  // namespace vlm::data

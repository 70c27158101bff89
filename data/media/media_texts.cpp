#include "data/media/media_texts.h"

#include <vector>

namespace vlm::data {

MediumText MediaTexts::text_of(const MediaRef& medium) {
  return medium.kind == MediaKind::kVideo ? video_text(medium) : picture_text(medium);
}

MediumText MediaTexts::picture_text(const MediaRef& picture) {
  // A picture that came with its sample has no name of its own.
  if (!picture.bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(picture.name);
    if (found != sizes_.end()) {
      return processor_.picture_text(found->second.first, found->second.second, picture.is_whole);
    }
  }
  const Image image = load_picture(picture);
  if (!picture.bytes) {
    const std::lock_guard lock(mutex_);
    sizes_[picture.name] = {image.height, image.width};
  }
  return processor_.picture_text(image.height, image.width, picture.is_whole);
}

MediumText MediaTexts::video_text(const MediaRef& clip) const {
  ClipReader reader(clip.name, video_, processor_.frame_sampling());
  const FrameShape size = reader.frame_shape();
  ClipShape shape{.times_s = reader.frames().times_s,
                  .chosen_frames = reader.frame_count(),
                  .duration_s = reader.duration_s(),
                  .height = size.height,
                  .width = size.width};
  if (video_.drop_duplicates) {
    shape.times_s.clear();
    reader.for_each_frame([&](const VideoFrame& frame) {
      shape.times_s.push_back(frame.time_s);
      return true;
    });
  }
  return processor_.video_text(shape);
}

}  // namespace vlm::data

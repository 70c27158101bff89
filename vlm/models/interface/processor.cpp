#include "vlm/models/interface/processor.h"

namespace vlm {

ProcessedMedia join_media(const std::vector<ProcessedMedium>& media) {
  ProcessedMedia joined;
  std::vector<Pixels> parts;
  for (const ProcessedMedium& medium : media) {
    joined.texts.push_back(medium.text);
    parts.push_back(medium.pixels);
  }
  joined.pixels = join_pixels(parts);
  return joined;
}

ProcessedMedium Processor::process_video(const VideoClip& clip) const {
  const std::int64_t chosen = clip.chosen_frames > 0 ? clip.chosen_frames : std::ssize(clip.frames);
  ClipShape shape{.times_s = clip.times_s, .chosen_frames = chosen, .duration_s = clip.duration_s};
  if (!clip.frames.empty()) {
    shape.height = clip.frames[0].height;
    shape.width = clip.frames[0].width;
  }
  return {process_frames(clip.frames, chosen), video_text(shape)};
}

ProcessedMedia Processor::process_media(const std::vector<Medium>& media) const {
  std::vector<ProcessedMedium> processed;
  for (const Medium& medium : media) {
    const auto* image = std::get_if<Image>(&medium);
    processed.push_back(image != nullptr ? process_picture(*image)
                                         : process_video(std::get<VideoClip>(medium)));
  }
  return join_media(processed);
}

ProcessedMedia Processor::process_pictures(const std::vector<Image>& images) const {
  std::vector<ProcessedMedium> processed;
  for (const Image& image : images) processed.push_back(process_picture(image));
  return join_media(processed);
}

}  // namespace vlm

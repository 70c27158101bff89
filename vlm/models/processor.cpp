#include "vlm/models/processor.h"

#include <ATen/ops/cat.h>

namespace vlm {

ProcessedMedia join_media(const std::vector<ProcessedMedium>& media) {
  ProcessedMedia joined;
  std::vector<at::Tensor> tiles;
  for (const ProcessedMedium& medium : media) {
    joined.texts.push_back(medium.text);
    tiles.push_back(medium.pixel_values);
  }
  if (!tiles.empty()) joined.pixel_values = tiles.size() == 1 ? tiles[0] : at::cat(tiles);
  return joined;
}

ProcessedMedium Processor::process_video(const VideoClip& clip) const {
  return {process_frames(clip.frames), video_text(clip.times_s, clip.duration_s)};
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

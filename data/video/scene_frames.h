// Which frames show something new.
//
//   VideoFile, budget ─► choose_scene_frames ─► ascending indices, at most budget
//
// The first frame, and those that differ most from the frame looked at before. Every frame of a
// short clip is looked at. Of a long one some, evenly spread: key frames where there are enough,
// which cost least to decode and which encoders put at cuts. Pictures are compared as 32 × 32
// means, one kept at a time: memory doesn't grow with the clip. A slow change is no large one.
#pragma once

#include <cstdint>
#include <vector>

#include "data/video/video_file.h"

namespace vlm::data {

struct SceneOptions {
  std::int64_t budget = 64;           // frames to choose
  std::int64_t max_looked_at = 2048;  // frames to compare; at least budget
  double start_s = 0;                 // of the part to choose from
  double end_s = 0;                   // 0: the clip's end
};

// Throws as VideoFile::read_frames does, and for a budget below 1 or a part without frames.
std::vector<std::int64_t> choose_scene_frames(VideoFile& file, const SceneOptions& options);

// 0 (the same) to 255: the mean difference of the pictures' 32 × 32 means.
double picture_change(const Image& a, const Image& b);

// True when no part of the picture (of 32 × 32) changed by more than the noise of coding does.
// Pictures of different sizes are never near-duplicates.
bool is_near_duplicate(const Image& a, const Image& b);

}  // namespace vlm::data

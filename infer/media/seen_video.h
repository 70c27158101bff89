// What the model was shown of a video: written to rows, and stored with features in the cache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/media/video_clip.h"
#include "vlm/core/json.h"
#include "vlm/models/interface/processor.h"

namespace vlm::infer {

struct WatchedVideo {
  double duration_s = 0;                // of the whole file
  std::vector<double> times_s;          // of the frames shown
  std::int64_t chosen_frames = 0;       // ClipShape::chosen_frames
  std::int64_t dropped_duplicates = 0;  // frames left out because they looked like the one before
  std::int64_t damaged_frames = 0;      // left out, or shown in doubt (VideoFile::damaged_frames)
  std::int64_t height = 0, width = 0;   // of a frame shown, in pixels

  ClipShape shape() const {
    return {.times_s = times_s,
            .chosen_frames = chosen_frames,
            .duration_s = duration_s,
            .height = height,
            .width = width};
  }
};

// As text for the cache, and back; the numbers keep every bit.
std::string to_note(const WatchedVideo& seen);
WatchedVideo parse_note(const std::string& note);

// duration_s, frames, damaged_frames and, with drop_duplicates, dropped_duplicates. An item that
// shows several videos has lists of these, in the order of the videos. Numbers have six decimals.
OrderedJson video_columns(const std::vector<WatchedVideo>& seen, bool has_dropped);
std::vector<std::string> video_column_names(bool has_dropped);

}  // namespace vlm::infer

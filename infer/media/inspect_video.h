// A report about a video file: what it holds, which frames would be shown, and how long reading
// them takes. Needs no model; what isn't given is sampled as the published checkpoints do (1 frame
// a second, at most 64).
#pragma once

#include <string>

#include "data/media/video_clip.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// path, container, codec, width, height, fps, constant_rate, frame_count, duration_s, truncated;
// indices and frames (seconds) of what was read, dropped_duplicates, shown_width and shown_height;
// open_s (until the frames are chosen), read_s (to decode and convert them), peak_rss_mb. Throws
// Error naming the file.
OrderedJson inspect_video(const std::string& path, const data::VideoSampling& sampling);

// A report for people, a line a field; "a.b" is field b of object a.
std::string to_lines(const OrderedJson& report);

}  // namespace vlm::infer

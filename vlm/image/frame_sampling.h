// Which frames of a clip are shown to the model.
//
//   FrameRate or presentation times, FrameSampling ─► SampledFrames: indices, ascending and
//   distinct, and their times in seconds
//
// sample_frames() gives what transformers' SmolVLMVideoProcessor.sample_frames (5.23) gives, index
// for index: its rounding, its skips at both ends, its limits; with the other rules what
// Qwen2VLVideoProcessor (kParts), Qwen3VLVideoProcessor (kEnds) and InternVLVideoProcessor
// (kMiddles) give for `fps`.
// sample_frames_by_time() is the same for files whose frames don't come at a constant rate, where
// an index doesn't give a time: it takes the frames on display at the times of the rule. All
// functions are pure; times are seconds from the first frame. Choosing frames by scene changes is
// in data/video/scene_frames.h.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace vlm {

// Rate and number of frames of a clip, from its container.
struct FrameRate {
  std::int64_t frame_count = 0;
  double fps = 0;
  double duration_s = 0;
};

struct FrameSampling {
  // kEnds: evenly from the first frame to the last one. kParts: the first frame of equal parts.
  // kMiddles: the middle one of each. kSegments: nearly the same, as the published example of
  // InternVL's original layout rounds.
  enum class Rule { kSmolVlm, kEnds, kParts, kMiddles, kSegments } rule = Rule::kSmolVlm;
  double fps = 1;                // frames wanted a second, more than 0
  std::int64_t max_frames = 64;  // most frames, at least 1
  double skip_s = 1;             // left out at both ends of a clip longer than the budget covers
  std::int64_t min_frames = 1;   // least, if the clip has so many; not for kSmolVlm
  std::int64_t multiple = 1;     // of which the number of frames is one; not for kSmolVlm
};

// A part of a clip; its frames are those on display in [start_s, end_s). Unset: the clip's own end.
struct TimeWindow {
  std::optional<double> start_s;
  std::optional<double> end_s;

  bool is_whole() const { return !start_s && !end_s; }
};

struct SampledFrames {
  std::vector<std::int64_t> indices;
  std::vector<double> times_s;  // as long as indices
};

// Every function throws Error for a clip without frames, and for a window that is empty or begins
// after the clip's end.

// The model's own rule. Times are index / fps. A window is sampled like a clip, without skipping at
// its ends; times count from the start of the whole clip.
SampledFrames sample_frames(const FrameRate& clip, const FrameSampling& sampling,
                            const TimeWindow& window = {});

// The same rule by presentation times (ascending); `duration_s` includes the display of the last
// frame.
SampledFrames sample_frames_by_time(const std::vector<double>& frame_times, double duration_s,
                                    const FrameSampling& sampling, const TimeWindow& window = {});

// The middles of at most max_frames equal parts of the frames in the window, whatever the rate.
SampledFrames sample_uniformly(const std::vector<double>& frame_times, double duration_s,
                               std::int64_t max_frames, const TimeWindow& window = {});

// The frames on display at given times, in any order. Throws Error for a time outside the clip.
SampledFrames sample_at_times(const std::vector<double>& frame_times, double duration_s,
                              const std::vector<double>& times_s);

// Presentation times of a clip of constant rate: i / fps.
std::vector<double> constant_frame_times(const FrameRate& clip);

// The frames [first, last] that a window covers. Throws as above.
struct FrameRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};
FrameRange find_frames(const std::vector<double>& frame_times, double duration_s,
                       const TimeWindow& window);

}  // namespace vlm

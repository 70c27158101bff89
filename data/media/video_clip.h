// A video file → the frames that a model is shown.
//
//   path, VideoSampling ─► load_clip ─► Clip: frames [H, W, 3] u8, times, duration
//                       ─► for_each_frame ─► callback, one frame at a time
//
// Which frames: the checkpoint's own rule (transformers' indices for files of constant rate, the
// same rule by presentation times for others), evenly spread, at the largest changes, or at given
// times (vlm/image/frame_sampling, data/video/scene_frames). Only the frames wanted are decoded and
// converted. Frames come upright, in RGB, at the size of the file or scaled down to frame_size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/video/frame_shape.h"
#include "data/video/video_file.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/json.h"
#include "vlm/image/frame_sampling.h"
#include "vlm/image/image.h"

namespace vlm::data {

// How frames are chosen. Values that aren't set are those of the checkpoint
// (Processor::frame_sampling).
struct VideoSampling {
  std::string strategy = "model";  // model, uniform, scene or times
  std::optional<double> fps;       // of strategy model
  std::optional<std::int64_t> max_frames;
  std::optional<double> start_s;  // only what is shown from here …
  std::optional<double> end_s;    // … to here
  std::vector<double> times_s;    // of strategy times
  std::int64_t frame_size = 0;    // long edge in pixels that larger frames are scaled to; 0: as is
  bool drop_duplicates = false;   // a frame that looks like the one shown before it is left out

  // The fields that a training config may set, as video_fps and so on: without window and times.
  Fields fields();
  // Throws Error naming the field (`prefix` in front of it) for values out of range and for ones
  // that have no effect with the strategy.
  void check(const std::string& prefix) const;
};

// Everything that the choice of frames depends on, with the checkpoint's values for those not set.
// For cache keys and journals.
OrderedJson describe_sampling(const VideoSampling& sampling, const FrameSampling& defaults);

struct Clip : VideoClip {
  std::vector<std::int64_t> indices;  // of the frames in the file
  double fps = 0;                     // the file's own
  std::int64_t dropped_duplicates = 0;
  std::string where;  // the file, for errors
};

// A file and the frames chosen from it. Nothing is decoded yet, unless frames are chosen by scene
// changes.
class ClipReader {
 public:
  // Opens the file without choosing frames. Throws Error naming the file.
  explicit ClipReader(const std::filesystem::path& path, const VideoLimits& limits = {});

  // Opens the file and chooses frames.
  ClipReader(const std::filesystem::path& path, const VideoSampling& sampling,
             const FrameSampling& defaults, const VideoLimits& limits = {});

  // May be called again, for another part of the file. `defaults` are the checkpoint's. Throws
  // Error naming the file.
  void choose(const VideoSampling& sampling, const FrameSampling& defaults);

  // The chosen frames, duplicates included, and facts about the file.
  const SampledFrames& frames() const { return frames_; }
  double duration_s() const { return duration_s_; }
  const VideoInfo& info() const { return file_.info(); }
  // Of the frames that are handed out.
  FrameShape frame_shape() const;
  std::int64_t frame_count() const { return static_cast<std::int64_t>(frames_.indices.size()); }

  // Decodes the chosen frames and calls the callback with each, in order, with its time; duplicates
  // are left out if drop_duplicates is set. The callback returns false to end it. Returns the
  // number of duplicates left out.
  std::int64_t for_each_frame(const FrameCallback& callback);

  // As for_each_frame, `count` frames at a time, fewer at the end. `times_s` gets the time of each.
  std::int64_t for_each_group(std::int64_t count, std::vector<double>& times_s,
                              const std::function<bool(const std::vector<Image>&)>& callback);

  // How many of these frames are damaged (VideoFile::damaged_frames).
  std::int64_t damaged_frames() const { return file_.damaged_frames(); }

 private:
  std::string where_;
  VideoFile file_;
  VideoSampling sampling_;
  double duration_s_ = 0;
  SampledFrames frames_;
};

// All frames at once. Throws Error naming the file, also when there is no frame.
Clip load_clip(const std::filesystem::path& path, const VideoSampling& sampling,
               const FrameSampling& defaults, const VideoLimits& limits = {});

}  // namespace vlm::data

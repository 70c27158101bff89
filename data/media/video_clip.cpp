#include "data/media/video_clip.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/video/scene_frames.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

constexpr std::int64_t kMostFrames = 65536;    // far beyond any model's context
constexpr std::int64_t kMostPixels = 1 << 20;  // of an edge

Error option_error(const std::string& prefix, const char* name, const std::string& got,
                   const std::string& wanted) {
  return Error(
      {.what = "value out of range", .where = prefix + name, .got = got, .wanted = wanted});
}

void refuse_idle(bool is_set, const std::string& name, const std::string& strategy) {
  if (!is_set) return;
  throw Error({.what = concat("has no effect with strategy '", strategy, "'"), .where = name});
}

OrderedJson or_null(const std::optional<double>& value) {
  return value ? OrderedJson(*value) : OrderedJson();
}

// Times of a file of constant rate are index / fps, as the reference has them.
std::vector<double> times_of(const VideoFile& file) {
  const VideoInfo& info = file.info();
  if (!info.constant_rate) return file.frame_times();
  return constant_frame_times({info.frame_count, info.fps, info.duration_s});
}

double duration_of(const VideoFile& file) {
  const VideoInfo& info = file.info();
  if (info.constant_rate) return info.duration_s;
  return std::max(info.duration_s, file.frame_times().back());
}

SampledFrames choose_scenes(VideoFile& file, const VideoSampling& sampling,
                            std::int64_t max_frames) {
  const std::vector<double> times = times_of(file);
  SampledFrames chosen{.indices =
                           choose_scene_frames(file, {.budget = max_frames,
                                                      .start_s = sampling.start_s.value_or(0),
                                                      .end_s = sampling.end_s.value_or(0)})};
  for (const std::int64_t index : chosen.indices) {
    chosen.times_s.push_back(times.at(static_cast<std::size_t>(index)));
  }
  return chosen;
}

SampledFrames choose_frames(VideoFile& file, const VideoSampling& sampling,
                            const FrameSampling& defaults, double duration_s) {
  FrameSampling rule = defaults;
  rule.fps = sampling.fps.value_or(defaults.fps);
  rule.max_frames = sampling.max_frames.value_or(defaults.max_frames);
  const TimeWindow window{sampling.start_s, sampling.end_s};
  if (sampling.strategy == "scene") return choose_scenes(file, sampling, rule.max_frames);
  if (sampling.strategy == "uniform") {
    return sample_uniformly(times_of(file), duration_s, rule.max_frames, window);
  }
  if (sampling.strategy == "times") {
    return sample_at_times(times_of(file), duration_s, sampling.times_s);
  }
  const VideoInfo& info = file.info();
  if (!info.constant_rate) {
    return sample_frames_by_time(file.frame_times(), duration_s, rule, window);
  }
  return sample_frames({info.frame_count, info.fps, info.duration_s}, rule, window);
}

}  // namespace

OrderedJson describe_sampling(const VideoSampling& sampling, const FrameSampling& defaults) {
  OrderedJson described = {{"strategy", sampling.strategy},
                           {"fps", sampling.fps.value_or(defaults.fps)},
                           {"max_frames", sampling.max_frames.value_or(defaults.max_frames)},
                           {"skip_s", defaults.skip_s},
                           {"start_s", or_null(sampling.start_s)},
                           {"end_s", or_null(sampling.end_s)},
                           {"times_s", sampling.times_s},
                           {"frame_size", sampling.frame_size},
                           {"drop_duplicates", sampling.drop_duplicates}};
  if (defaults.rule != FrameSampling::Rule::kSmolVlm) {
    described["rule"] = {static_cast<int>(defaults.rule), defaults.min_frames, defaults.multiple};
  }
  return described;
}

Fields VideoSampling::fields() {
  return {
      {"video_strategy",
       &strategy,
       "Frames of clips: the model's rule, evenly spread, or the largest changes",
       {"model", "uniform", "scene"}},
      {"video_fps", &fps, "Frames a second that the model's rule takes; null: the checkpoint's"},
      {"video_max_frames", &max_frames, "Most frames of a clip; null: the checkpoint's"},
      {"video_frame_size", &frame_size,
       "Long edge that larger frames are scaled to while decoding; 0: as they are"},
      {"video_drop_duplicates", &drop_duplicates, "Leave out frames that look like the one before"},
  };
}

void VideoSampling::check(const std::string& prefix) const {
  const std::vector<std::string> strategies = {"model", "uniform", "scene", "times"};
  if (std::find(strategies.begin(), strategies.end(), strategy) == strategies.end()) {
    throw option_error(prefix, "strategy", concat("'", strategy, "'"), vlm::join(strategies));
  }
  if (fps && !(*fps > 0 && *fps <= 1e6)) {
    throw option_error(prefix, "fps", concat(*fps), *fps > 1e6 ? "at most 1000000" : "more than 0");
  }
  if (max_frames && (*max_frames < 1 || *max_frames > kMostFrames)) {
    throw option_error(prefix, "max_frames", concat(*max_frames), concat("1 to ", kMostFrames));
  }
  if (frame_size < 0 || frame_size > kMostPixels) {
    throw option_error(prefix, "frame_size", concat(frame_size),
                       frame_size < 0 ? "at least 0 pixels" : concat("at most ", kMostPixels));
  }
  refuse_idle(fps.has_value() && strategy != "model", prefix + "fps", strategy);
  refuse_idle(max_frames.has_value() && strategy == "times", prefix + "max_frames", strategy);
  refuse_idle((start_s || end_s) && strategy == "times", prefix + "start and end", strategy);
  refuse_idle(!times_s.empty() && strategy != "times", prefix + "times", strategy);
}

ClipReader::ClipReader(const std::filesystem::path& path, const VideoLimits& limits)
    : where_(path.string()), file_(path, limits), duration_s_(duration_of(file_)) {}

ClipReader::ClipReader(const std::filesystem::path& path, const VideoSampling& sampling,
                       const FrameSampling& defaults, const VideoLimits& limits)
    : ClipReader(path, limits) {
  choose(sampling, defaults);
}

void ClipReader::choose(const VideoSampling& sampling, const FrameSampling& defaults) {
  sampling_ = sampling;
  try {
    frames_ = choose_frames(file_, sampling_, defaults, duration_s_);
  } catch (const Error& error) {
    if (error.parts().where.starts_with(where_)) throw;
    throw located(error, where_);
  }
}

std::int64_t ClipReader::for_each_frame(const FrameCallback& callback) {
  std::int64_t dropped = 0;
  Image shown;  // the last frame handed out, where duplicates are looked for
  std::size_t next = 0;
  const auto hand_out = [&](VideoFrame frame) {
    while (next < frames_.indices.size() && frames_.indices[next] < frame.index) ++next;
    if (next < frames_.indices.size()) frame.time_s = frames_.times_s[next];
    if (sampling_.drop_duplicates) {
      if (!shown.pixels.empty() && is_near_duplicate(shown, frame.image)) {
        ++dropped;
        return true;
      }
      shown = frame.image;
    }
    return callback(std::move(frame));
  };
  file_.read_frames(frames_.indices, hand_out, sampling_.frame_size);
  return dropped;
}

std::int64_t ClipReader::for_each_group(
    std::int64_t count, std::vector<double>& times_s,
    const std::function<bool(const std::vector<Image>&)>& callback) {
  std::vector<Image> group;
  bool is_wanted = true;
  const auto hand_out = [&] {
    is_wanted = callback(group);
    group.clear();
    return is_wanted;
  };
  const std::int64_t dropped = for_each_frame([&](VideoFrame frame) {
    times_s.push_back(frame.time_s);
    group.push_back(std::move(frame.image));
    return std::ssize(group) < count || hand_out();
  });
  if (is_wanted && !group.empty()) hand_out();
  return dropped;
}

FrameShape ClipReader::frame_shape() const {
  return shrink({.width = info().width, .height = info().height}, sampling_.frame_size);
}

Clip load_clip(const std::filesystem::path& path, const VideoSampling& sampling,
               const FrameSampling& defaults, const VideoLimits& limits) {
  ClipReader reader(path, sampling, defaults, limits);
  Clip clip;
  clip.duration_s = reader.duration_s();
  clip.chosen_frames = reader.frame_count();
  clip.fps = reader.info().fps;
  clip.where = path.string();
  clip.dropped_duplicates = reader.for_each_frame([&](VideoFrame frame) {
    clip.frames.push_back(std::move(frame.image));
    clip.times_s.push_back(frame.time_s);
    clip.indices.push_back(frame.index);
    return true;
  });
  return clip;
}

}  // namespace vlm::data

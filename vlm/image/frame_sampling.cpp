#include "vlm/image/frame_sampling.h"

#include <algorithm>
#include <cmath>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

// Times that differ by less are the same: containers round to microseconds at best.
constexpr double kSameTime_s = 1e-6;

void require_frames(std::int64_t count) {
  if (count < 1) throw Error({.what = "clip has no frames"});
}

// The same for the rules that know how many `frames` there are.
std::int64_t wanted_of(double duration_s, std::int64_t frames, const FrameSampling& sampling) {
  const std::int64_t multiple = sampling.multiple;
  const std::int64_t most = std::min(sampling.max_frames, frames) / multiple * multiple;
  double wanted = std::isfinite(duration_s) ? duration_s * sampling.fps : 0;
  if (sampling.rule == FrameSampling::Rule::kEnds) wanted = std::floor(wanted);
  wanted = std::max(wanted, static_cast<double>(sampling.min_frames));
  wanted = std::min({wanted, static_cast<double>(most), static_cast<double>(frames)});
  // A clip of fewer frames than the multiple is taken whole.
  const auto whole = static_cast<std::int64_t>(wanted) / multiple * multiple;
  return whole > 0 ? whole : std::min(frames, sampling.max_frames);
}

// How many frames the rule wants of `duration_s`; halves go to the even number, as in Python.
std::int64_t wanted_frames(double duration_s, std::int64_t frames, const FrameSampling& sampling) {
  if (sampling.rule != FrameSampling::Rule::kSmolVlm) {
    return wanted_of(duration_s, frames, sampling);
  }
  const double estimate = std::nearbyint(sampling.fps * duration_s);
  if (!(estimate >= 1)) return 1;  // also for NaN
  const auto most = static_cast<double>(sampling.max_frames);
  return std::max<std::int64_t>(static_cast<std::int64_t>(std::min(estimate, most)), 1);
}

// The reference compares a duration with max_frames · fps, not max_frames / fps.
bool skips_ends(double duration_s, const FrameSampling& sampling) {
  return sampling.rule == FrameSampling::Rule::kSmolVlm && sampling.skip_s > 0 &&
         duration_s - 2 * sampling.skip_s > static_cast<double>(sampling.max_frames) * sampling.fps;
}

// numpy.linspace: `count` values from `first` to `last`, both included.
std::vector<double> spread(double first, double last, std::int64_t count) {
  std::vector<double> values(static_cast<std::size_t>(count), first);
  if (count == 1) return values;
  const double step = (last - first) / static_cast<double>(count - 1);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(i) * step + first;
  }
  values.back() = last;
  return values;
}

// The frame on display at a time; the first one before it.
std::int64_t frame_at(const std::vector<double>& frame_times, double time_s) {
  const auto after = std::upper_bound(frame_times.begin(), frame_times.end(), time_s + kSameTime_s);
  return std::max<std::int64_t>(after - frame_times.begin() - 1, 0);
}

SampledFrames with_times(std::vector<std::int64_t> indices,
                         const std::vector<double>& frame_times) {
  std::sort(indices.begin(), indices.end());
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  SampledFrames sampled{.indices = std::move(indices)};
  for (const std::int64_t index : sampled.indices) {
    sampled.times_s.push_back(frame_times[static_cast<std::size_t>(index)]);
  }
  return sampled;
}

std::string show(const TimeWindow& window) {
  return concat(window.start_s.value_or(0), " to ",
                window.end_s ? concat(*window.end_s) : std::string("the end"), " s");
}

// The model's rule on frames `first` to `last`, without their times.
std::vector<std::int64_t> spread_indices(std::int64_t first, std::int64_t last, std::int64_t count,
                                         FrameSampling::Rule rule) {
  std::vector<std::int64_t> indices;
  if (rule == FrameSampling::Rule::kParts || rule == FrameSampling::Rule::kMiddles) {
    const double step = static_cast<double>(last - first + 1) / static_cast<double>(count);
    const double shift = rule == FrameSampling::Rule::kMiddles ? step / 2 : 0;
    for (std::int64_t i = 0; i < count; ++i) {  // rounded to float32, as torch.arange does
      const auto value = static_cast<float>(shift + static_cast<double>(i) * step);
      indices.push_back(first + static_cast<std::int64_t>(value));
    }
    return indices;
  }
  if (rule == FrameSampling::Rule::kSegments) {
    const double step = static_cast<double>(last - first) / static_cast<double>(count);
    for (std::int64_t i = 0; i < count; ++i) {
      const double value = step / 2 + std::nearbyint(step * static_cast<double>(i));
      indices.push_back(first + static_cast<std::int64_t>(value));
    }
    return indices;
  }
  if (rule == FrameSampling::Rule::kEnds) {
    for (const double value :
         spread(static_cast<double>(first), static_cast<double>(last), count)) {
      indices.push_back(static_cast<std::int64_t>(std::nearbyint(value)));
    }
    return indices;
  }
  for (const double value : spread(static_cast<double>(first), static_cast<double>(last), count)) {
    indices.push_back(static_cast<std::int64_t>(value));
  }
  return indices;
}

}  // namespace

FrameRange find_frames(const std::vector<double>& frame_times, double duration_s,
                       const TimeWindow& window) {
  require_frames(static_cast<std::int64_t>(frame_times.size()));
  FrameRange range{0, static_cast<std::int64_t>(frame_times.size()) - 1};
  if (window.is_whole()) return range;
  const double start = window.start_s.value_or(0);
  if (start < 0 || (window.end_s && !(*window.end_s > start))) {
    throw Error({.what = "empty time window", .got = show(window), .wanted = "0 <= start < end"});
  }
  const double end = std::max(duration_s, frame_times.back() + kSameTime_s);
  if (start >= end) {
    throw Error({.what = "time window lies behind the end of the clip",
                 .got = show(window),
                 .wanted = concat("a start before ", end, " s")});
  }
  range.first = frame_at(frame_times, start);
  if (window.end_s) {
    const auto end =
        std::lower_bound(frame_times.begin(), frame_times.end(), *window.end_s - kSameTime_s);
    range.last = std::max<std::int64_t>(end - frame_times.begin() - 1, range.first);
  }
  return range;
}

std::vector<double> constant_frame_times(const FrameRate& clip) {
  std::vector<double> times;
  times.reserve(static_cast<std::size_t>(std::max<std::int64_t>(clip.frame_count, 0)));
  for (std::int64_t i = 0; i < clip.frame_count; ++i) {
    times.push_back(static_cast<double>(i) / clip.fps);
  }
  return times;
}

SampledFrames sample_frames(const FrameRate& clip, const FrameSampling& sampling,
                            const TimeWindow& window) {
  require_frames(clip.frame_count);
  std::int64_t first = 0;
  std::int64_t last = clip.frame_count - 1;
  double duration = clip.duration_s;
  if (!window.is_whole()) {
    const FrameRange range = find_frames(constant_frame_times(clip), duration, window);
    first = range.first;
    last = range.last;
    duration = static_cast<double>(last - first + 1) / clip.fps;
  } else if (skips_ends(duration, sampling)) {
    const double skipped = sampling.skip_s * clip.fps;
    first = std::max<std::int64_t>(static_cast<std::int64_t>(skipped), 0);
    last =
        std::min(static_cast<std::int64_t>(static_cast<double>(clip.frame_count) - skipped), last);
    if (first >= last) {
      first = 0;
      last = clip.frame_count - 1;
    }
  }
  const std::int64_t wanted = wanted_frames(duration, last - first + 1, sampling);
  SampledFrames sampled{.indices = spread_indices(first, last, wanted, sampling.rule)};
  auto& indices = sampled.indices;
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  for (const std::int64_t index : indices) {
    sampled.times_s.push_back(static_cast<double>(index) / clip.fps);
  }
  return sampled;
}

SampledFrames sample_frames_by_time(const std::vector<double>& frame_times, double duration_s,
                                    const FrameSampling& sampling, const TimeWindow& window) {
  const FrameRange range = find_frames(frame_times, duration_s, window);
  double first = frame_times[static_cast<std::size_t>(range.first)];
  double last = frame_times[static_cast<std::size_t>(range.last)];
  double duration = duration_s;
  if (!window.is_whole()) {
    // Until when the last frame of the window is on display in it.
    const auto next = static_cast<std::size_t>(range.last) + 1;
    const double shown = next < frame_times.size() ? frame_times[next] : duration_s;
    duration = std::min(shown, window.end_s.value_or(shown)) - first;
  } else if (skips_ends(duration_s, sampling) &&
             first + sampling.skip_s < duration_s - sampling.skip_s) {
    last = std::min(last, duration_s - sampling.skip_s);
    first += sampling.skip_s;
  }
  std::vector<std::int64_t> indices;
  const std::int64_t wanted = wanted_frames(duration, range.last - range.first + 1, sampling);
  const double part = duration / static_cast<double>(wanted);
  double begin = first, end = last;
  const bool is_middle = sampling.rule == FrameSampling::Rule::kMiddles ||
                         sampling.rule == FrameSampling::Rule::kSegments;
  if (is_middle) begin += part / 2;
  if (sampling.rule == FrameSampling::Rule::kParts) end = first + duration - part;
  if (is_middle) end = first + duration - part / 2;
  for (const double time : spread(begin, end, wanted)) {
    indices.push_back(frame_at(frame_times, time));
  }
  return with_times(std::move(indices), frame_times);
}

SampledFrames sample_uniformly(const std::vector<double>& frame_times, double duration_s,
                               std::int64_t max_frames, const TimeWindow& window) {
  const FrameRange range = find_frames(frame_times, duration_s, window);
  const std::int64_t count = range.last - range.first + 1;
  const std::int64_t wanted = std::clamp<std::int64_t>(max_frames, 1, count);
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < wanted; ++i) {
    indices.push_back(range.first + (2 * i + 1) * count / (2 * wanted));
  }
  return with_times(std::move(indices), frame_times);
}

SampledFrames sample_at_times(const std::vector<double>& frame_times, double duration_s,
                              const std::vector<double>& times_s) {
  require_frames(static_cast<std::int64_t>(frame_times.size()));
  const double end = std::max(duration_s, frame_times.back());
  std::vector<std::int64_t> indices;
  for (const double time : times_s) {
    if (!(time >= 0 && time <= end + kSameTime_s)) {
      throw Error({.what = "time lies outside the clip",
                   .got = concat(time, " s"),
                   .wanted = concat("0 to ", end, " s")});
    }
    indices.push_back(frame_at(frame_times, time));
  }
  if (indices.empty()) throw Error({.what = "no times are given"});
  return with_times(std::move(indices), frame_times);
}

}  // namespace vlm

// Reads frames of a video for scripts/bench_video.py, and prints what it found as JSON.
//
//   video_tool FILE --count N | --step-s S | --all [--long-edge PX] [--debug]
//
// N frames evenly spaced from the first to the last, or one each S seconds, or all. The digest is
// of all pixels that were read, to compare with another reader's.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/video/video_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace {

struct Options {
  std::string file;
  std::int64_t count = 0;
  double step_s = 0;
  std::int64_t long_edge = 0;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::atof(argv[++i]) : 0.0; };
    if (name == "--count")
      options.count = static_cast<std::int64_t>(value());
    else if (name == "--step-s")
      options.step_s = value();
    else if (name == "--long-edge")
      options.long_edge = static_cast<std::int64_t>(value());
    else if (name == "--debug")
      vlm::set_log_level(vlm::LogLevel::kDebug);
    else if (name != "--all")
      options.file = name;
  }
  return options;
}

std::vector<std::int64_t> choose(const vlm::data::VideoFile& file, const Options& options) {
  const std::vector<double>& times = file.frame_times();
  const auto frames = static_cast<std::int64_t>(times.size());
  std::vector<std::int64_t> indices;
  if (options.count > 0) {
    const std::int64_t count = std::min(options.count, frames);
    for (std::int64_t i = 0; i < count; ++i) {
      indices.push_back(count > 1 ? i * (frames - 1) / (count - 1) : 0);
    }
  } else if (options.step_s > 0) {
    for (double time = 0; time <= times.back(); time += options.step_s) {
      const auto at = std::lower_bound(times.begin(), times.end(), time - 1e-6);
      if (at != times.end()) indices.push_back(at - times.begin());
    }
  } else {
    for (std::int64_t i = 0; i < frames; ++i) indices.push_back(i);
  }
  return indices;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  vlm::data::VideoFile file(options.file);
  const double open_s = seconds_since(start);
  std::uint64_t sum = 0, place = 0;
  const auto add = [&](const vlm::data::VideoFrame& frame) {
    for (const std::uint8_t byte : frame.image.pixels) sum += byte * (++place % 251);
    return true;
  };
  const auto read = std::chrono::steady_clock::now();
  const std::int64_t count = file.read_frames(choose(file, options), add, options.long_edge);
  const double read_s = seconds_since(read);
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const vlm::data::VideoInfo& info = file.info();
  std::printf(
      "{\"frames\": %ld, \"fps\": %.6f, \"width\": %ld, \"height\": %ld, \"codec\": \"%s\", "
      "\"constant_rate\": %s, \"truncated\": %s, \"read\": %ld, \"open_s\": %.6f, "
      "\"read_s\": %.6f, \"peak_rss_mb\": %.1f, \"digest\": %lu}\n",
      info.frame_count, info.fps, info.width, info.height, info.codec.c_str(),
      info.constant_rate ? "true" : "false", info.truncated ? "true" : "false", count, open_s,
      read_s, static_cast<double>(usage.ru_maxrss) / 1024, sum);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const vlm::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

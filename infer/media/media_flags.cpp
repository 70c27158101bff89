#include "infer/media/media_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"

namespace vlm::infer {

void VideoFlags::declare(CLI::App& command, CLI::Option* video) {
  command
      .add_option("--fps", given.fps, "Video: frames a second (default: the checkpoint's, or 1)")
      ->check(above(0));
  command
      .add_option("--max-frames", given.max_frames,
                  "Video: most frames (default: the checkpoint's, or 64)")
      ->check(above(0));
  command.add_option("--start", given.start_s, "Video: only from this second on (default: 0)")
      ->check(at_least(0));
  command.add_option("--end", given.end_s, "Video: only before this second (default: its end)")
      ->check(above(0));
  command
      .add_option("--frame-size", given.frame_size,
                  "Video: long edge in pixels that larger frames are scaled to while decoding; 0: "
                  "as they are")
      ->check(at_least(0))
      ->capture_default_str();
  command
      .add_option("--sampling", given.strategy,
                  "Video: which frames: the model's own rule, uniform (evenly spread, --max-frames "
                  "of them), scene (the largest changes), times (those of --times)")
      ->check(CLI::IsMember({"model", "uniform", "scene", "times"}))
      ->capture_default_str();
  command
      .add_option("--times", given.times_s,
                  "Video: show the frames at these seconds, divided by commas (default: none)")
      ->delimiter(',')
      ->check(at_least(0));
  command.add_flag("--drop-duplicates", given.drop_duplicates,
                   "Video: leave out frames that look like the one before, and count them");
  if (!video) return;
  for (const char* name : {"--fps", "--max-frames", "--start", "--end", "--frame-size",
                           "--sampling", "--times", "--drop-duplicates"}) {
    command.get_option(name)->needs(video);
  }
}

data::VideoSampling VideoFlags::sampling() const {
  data::VideoSampling sampling = given;
  if (!sampling.times_s.empty() && sampling.strategy == "model") sampling.strategy = "times";
  if (sampling.times_s.empty() && sampling.strategy == "times") {
    throw Error({.what = "no times", .where = "--sampling times", .hint = "give --times"});
  }
  if (sampling.start_s && sampling.end_s && *sampling.start_s >= *sampling.end_s) {
    throw Error({.what = "--start is not before --end"});
  }
  try {
    sampling.check("--");
  } catch (const Error& error) {  // options are written with hyphens
    ErrorParts parts = error.parts();
    std::replace(parts.where.begin(), parts.where.end(), '_', '-');
    throw Error(parts);
  }
  return sampling;
}

OrderedJson VideoFlags::describe() const {
  OrderedJson options = OrderedJson::object();
  const auto add = [&](const char* name, const auto& value) {
    if (value) options[name] = *value;
  };
  add("--fps", given.fps);
  add("--max-frames", given.max_frames);
  add("--start", given.start_s);
  add("--end", given.end_s);
  if (given.frame_size > 0) options["--frame-size"] = given.frame_size;
  if (sampling().strategy != "model") options["--sampling"] = sampling().strategy;
  if (!given.times_s.empty()) options["--times"] = given.times_s;
  if (given.drop_duplicates) options["--drop-duplicates"] = true;
  return options;
}

void declare_feature_cache(CLI::App& command, FeatureCacheChoice& choice) {
  command
      .add_option("--feature-cache", choice.folder,
                  "Folder that keeps encoded pictures and videos for later runs; auto: a folder of "
                  "the user's "
                  "cache when the vision encoder is large; off: none")
      ->check(not_empty())
      ->capture_default_str();
  command.add_option("--feature-cache-gb", choice.gigabytes, "Most that the folder may take")
      ->check(above(0))
      ->capture_default_str();
}

}  // namespace vlm::infer

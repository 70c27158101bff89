// The options of the command line that say which frames of a video are shown and where features are
// kept, the same for every command.
#pragma once

#include "data/media/video_clip.h"
#include "infer/media/picture_features.h"
#include "vlm/core/json.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace vlm::infer {

struct VideoFlags {
  data::VideoSampling given;

  // Declares --fps and the rest; all of them need `video`, where it is given.
  void declare(CLI::App& command, CLI::Option* video = nullptr);

  // What was given. Throws Error for what is out of range or has no effect.
  data::VideoSampling sampling() const;

  // What was given, for a run's journal.
  OrderedJson describe() const;
};

// Declares --feature-cache and --feature-cache-gb.
void declare_feature_cache(CLI::App& command, FeatureCacheChoice& choice);

}  // namespace vlm::infer

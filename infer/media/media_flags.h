// Command-line options of every command for choosing the frames of videos and the feature cache.
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

  // Declares --fps and the other options of videos; if `video` is given, they need that option.
  void declare(CLI::App& command, CLI::Option* video = nullptr);

  // The options given. Throws Error for values out of range and for options without effect.
  data::VideoSampling sampling() const;

  // The options given, for a run's journal.
  OrderedJson describe() const;
};

// Declares --feature-cache and --feature-cache-gb.
void declare_feature_cache(CLI::App& command, FeatureCacheChoice& choice);

}  // namespace vlm::infer

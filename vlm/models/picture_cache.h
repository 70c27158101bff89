// Whether a run keeps picture features on disk, where, and under what keys.
//
//   "auto", "off" or a folder + model ─► open_feature_cache ─► FeatureCache, or nothing
#pragma once

#include <memory>
#include <string>

#include "vlm/io/feature_cache.h"
#include "vlm/models/interface/model.h"

namespace vlm {

struct FeatureCacheChoice {
  std::string folder = "auto";  // "auto", "off" or a folder
  double gigabytes = 10;
};

// Null when it is off. "auto" means the user's cache folder if the model's vision encoder is so
// large that reading features is clearly quicker than computing them, else off.
std::shared_ptr<FeatureCache> open_feature_cache(const FeatureCacheChoice& choice,
                                                 const VisionLanguageModel& model);

// Digest of what features depend on besides the tiles: vision weights, settings, dtype, kind of
// device. Part of a cache key. Reads all vision weights.
std::string digest_picture_side(const VisionLanguageModel& model);

}  // namespace vlm

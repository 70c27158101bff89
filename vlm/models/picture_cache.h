// Whether a run keeps picture features on disk, where, and under what keys.
//
//   "auto", "off" or a folder + model ─► open_feature_cache ─► FeatureCache, or nothing
#pragma once

#include <memory>
#include <string>

#include "vlm/io/feature_cache.h"
#include "vlm/models/model.h"

namespace vlm {

struct FeatureCacheChoice {
  std::string folder = "auto";  // "auto", "off" or a folder
  double gigabytes = 10;
};

// Null when it is off. "auto" is the user's cache folder when the model's vision encoder is so
// large that reading features back is clearly cheaper than making them, else off.
std::shared_ptr<FeatureCache> open_feature_cache(const FeatureCacheChoice& choice,
                                                 const VisionLanguageModel& model);

// What features follow from beside the tiles: the weights that see them, and the arithmetic. A
// part of keys. Reads all those weights.
std::string digest_picture_side(const VisionLanguageModel& model);

}  // namespace vlm

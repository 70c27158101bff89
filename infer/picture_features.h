// Tiles of the pictures of one prompt, and what the vision encoder made of them.
//
//   tiles [N, 3, S, S] ─► encode_pictures ─► features [N, L, C]
//
// Requests about the same pictures share one of these. Features come from the cache on disk where
// they are known; what is missing is encoded, tiles of different pictures together. Tiles are let
// go once their features are there.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "vlm/io/feature_cache.h"
#include "vlm/models/model.h"
#include "vlm/models/picture_cache.h"

namespace vlm::infer {

struct PictureFeatures {
  at::Tensor pixel_values;  // [N, 3, S, S]; undefined once there are features
  at::Tensor features;      // [N, L, C] on the model's device; undefined: not yet
};

class PictureEncoder {
 public:
  explicit PictureEncoder(ModelPtr model) : model_(std::move(model)) {}

  // Null: nothing is kept on disk.
  void set_cache(std::shared_ptr<FeatureCache> cache) { cache_ = std::move(cache); }

  // Gives features to those that have none.
  void encode(const std::vector<std::shared_ptr<PictureFeatures>>& pictures);

  // Tiles that go through the encoder at once, and so are best given together.
  std::int64_t tiles_at_once() const { return model_->max_tiles_per_chunk; }

 private:
  std::string make_key(const at::Tensor& pixel_values);

  ModelPtr model_;
  std::shared_ptr<FeatureCache> cache_;
  std::string model_digest_;  // made when first needed
};

}  // namespace vlm::infer

// Tiles of the pictures of one prompt, and what the vision encoder made of them.
//
//   tiles [N, 3, S, S] ─► encode_pictures ─► features [N, L, C]
//
// Requests about the same pictures share one of these. Features come from the cache on disk where
// they are known; what is missing is encoded, tiles of different pictures together. Tiles are let
// go once their features are there. A video's frames are pictures of one tile each that come piece
// by piece (infer/media).
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
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

  // tiles [n, 3, S, S] → features [n, L, C], past the cache.
  at::Tensor encode_tiles(const at::Tensor& tiles);

  // Gives back what only encoding needs, when no picture waits: freed activations, and the pages of
  // mapped weights, which come back from the file with the next picture.
  void rest();

  at::Tensor to_device(const at::Tensor& features) const { return features.to(model_->device()); }

  // The cache, for features of whatever `content` tells from everything else. Any thread may call
  // these. Without a cache, or with an empty key, nothing is found and nothing kept.
  bool has_cache() const { return cache_ != nullptr; }
  std::string make_key(const std::string& content);
  std::optional<CachedFeatures> find(const std::string& key);
  void store(const std::string& key, const at::Tensor& features, const std::string& note = "");

  // Videos, or segments of them, that were decoded, and those that the cache had.
  void count_video(bool is_cached) { ++(is_cached ? cached_videos_ : decoded_videos_); }
  std::int64_t decoded_videos() const { return decoded_videos_; }
  std::int64_t cached_videos() const { return cached_videos_; }

 private:
  ModelPtr model_;
  bool has_encoded_ = false;  // since it last rested
  std::shared_ptr<FeatureCache> cache_;
  std::once_flag is_digested_;
  std::string model_digest_;  // made when first needed
  std::atomic<std::int64_t> decoded_videos_{0}, cached_videos_{0};
};

}  // namespace vlm::infer

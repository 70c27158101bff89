// Pixels of the pictures of one prompt, and their features from the vision encoder.
//
//   Pixels ─► PictureEncoder ─► features [ΣL, W]
//
// Requests about the same pictures share one PictureFeatures. Features come from the cache on disk
// if it has them, else from the encoder, which takes several pictures together. Pixels are freed
// once their features are there. In serving they are encoded in short pieces, and parts that were
// shown before come from memory. A video's frames are encoded a few at a time (shown_media.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "infer/kept/kept_features.h"
#include "vlm/io/feature_cache.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/picture_cache.h"

namespace vlm::infer {

// A tile, or a picture of patches: what is encoded, and kept in memory, by itself.
struct PicturePart {
  Pixels pixels;
  std::string digest;   // of the pixels
  at::Tensor features;  // undefined: not yet
};

struct PictureFeatures {
  Pixels pixels;        // empty once there are features
  at::Tensor features;  // [ΣL, W] on the model's device; undefined: not yet
  // Of pixels that are encoded piece by piece, in their order; else empty.
  std::vector<PicturePart> parts = {};

  std::int64_t bytes() const;
};

class PictureEncoder {
 public:
  explicit PictureEncoder(ModelPtr model) : model_(std::move(model)) {}

  // Null: features aren't kept on disk.
  void set_cache(std::shared_ptr<FeatureCache> cache) { cache_ = std::move(cache); }

  // Computes, or reads from the cache, the features of those that have none.
  void encode(const std::vector<std::shared_ptr<PictureFeatures>>& pictures);

  // Units (Pixels::units) that the encoder takes at once; pass that many together.
  std::int64_t units_at_once() const { return model_->units_at_once; }

  // Splits pictures for encode_piece, and looks for them in the cache. Thread-safe.
  void prepare(PictureFeatures& pictures);
  // Takes pictures that are split a piece further: as many parts as make a short pass. True when
  // they have features.
  bool encode_piece(PictureFeatures& pictures);
  // Features in memory, for pictures that are split. The model's thread only.
  KeptFeatures& kept() { return kept_; }
  std::int64_t encoded_units() const { return encoded_units_; }

  // → features [pixels.tokens, W], without the cache.
  at::Tensor encode(const Pixels& pixels);

  // Gives memory that only encoding needs back to the system, when no picture waits: freed
  // activations, and unchanged pages of mapped vision weights, which are read from the file again
  // for the next picture.
  void release_memory();

  at::Tensor to_device(const at::Tensor& features) const { return features.to(model_->device()); }

  // The cache. `content` must identify what was encoded; make_key adds the digest of the model.
  // Thread-safe. Without a cache, or with an empty key, find finds nothing and store does nothing.
  bool has_cache() const { return cache_ != nullptr; }
  std::string make_key(const std::string& content);
  std::optional<CachedFeatures> find(const std::string& key);
  void store(const std::string& key, const at::Tensor& features, const std::string& note = "");

  // Counts of videos, or segments of them, that were decoded and that came from the cache.
  void count_video(bool is_cached) { ++(is_cached ? cached_videos_ : decoded_videos_); }
  std::int64_t decoded_videos() const { return decoded_videos_; }
  std::int64_t cached_videos() const { return cached_videos_; }

 private:
  ModelPtr model_;
  bool has_encoded_ = false;  // since the last release_memory()
  std::shared_ptr<FeatureCache> cache_;
  KeptFeatures kept_;
  std::int64_t encoded_units_ = 0;
  std::once_flag is_digested_;
  std::string model_digest_;  // computed when first needed
  std::atomic<std::int64_t> decoded_videos_{0}, cached_videos_{0};
};

}  // namespace vlm::infer

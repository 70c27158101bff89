// Features of the training pictures: encoded once, then read from the cache on disk.
//
//   worker threads: content key ─► find ─► features, so that the picture isn't even decoded
//   training loop:  Batch ─► features_of ─► [ΣN, L, C] in the order of the batch's places
//
// Entries are keyed by the files' content, the processor's settings, and everything of the model
// that makes features. They are written by a thread of their own; the cache is bounded, shared by
// runs and safe against crashes (vlm/io/feature_cache.h). A sample's pictures are always encoded
// together and apart from other samples', so that features don't depend on what else was in the
// batch and a resumed run is exact. Without a cache (trained or augmented pictures) a store only
// encodes.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "data/batch.h"
#include "vlm/io/feature_cache.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::train {

class PictureStore : public data::PictureLookup {
 public:
  // `cache` may be null. The model's weights are hashed here.
  PictureStore(std::shared_ptr<FeatureCache> cache, const VisionLanguageModel& model,
               const Processor& processor);
  ~PictureStore() override;
  PictureStore(const PictureStore&) = delete;
  PictureStore& operator=(const PictureStore&) = delete;

  // Any thread may ask.
  std::optional<data::KnownPictures> find(const std::string& key) const override;

  // Undefined when the batch has no pictures. Encodes what has no features, and keeps them.
  at::Tensor features_of(VisionLanguageModel& model, const data::Batch& batch);

  // Lets the published weights of the model's vision tower go, but for those in `kept`, where
  // features have come from the cache alone for a while; `reload` brings them back should a picture
  // be missing after all, and then they stay: the cache doesn't hold all pictures. Weights that are
  // gone are empty in named_parameters().
  void release_tower(VisionLanguageModel& model, const std::set<std::string>& kept,
                     std::function<ModelPtr()> reload);
  // Throws Error when `reload` brings other weights than those that went.
  void restore_tower(VisionLanguageModel& model);

  bool has_cache() const { return cache_ != nullptr; }
  std::int64_t encoded() const { return encoded_; }  // samples' pictures, so far
  bool is_released() const { return static_cast<bool>(reload_); }

 private:
  at::Tensor features_of(VisionLanguageModel& model, const data::SamplePictures& pictures);
  void keep(const data::SamplePictures& pictures, const at::Tensor& features);
  std::string entry_key(const std::string& content) const;
  void write_entries();

  std::shared_ptr<FeatureCache> cache_;
  std::string settings_;
  std::int64_t encoded_ = 0;
  std::function<ModelPtr()> reload_;
  std::set<std::string> kept_;
  std::string released_;    // digest of what went
  bool is_needed_ = false;  // a picture was missing while the tower was released

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<std::string, at::Tensor>> to_write_;
  bool is_stopping_ = false;
  std::thread writer_;
};

// Features of a batch's pictures without any store: what is missing is encoded together.
at::Tensor encode_pictures(VisionLanguageModel& model, const data::Batch& batch);

// True when the weights that make picture features are trained.
bool trains_pictures(const VisionLanguageModel& model);

// Texts and features in one tensor of bytes, as the cache keeps them, and back.
at::Tensor to_entry(const data::KnownPictures& pictures);
std::optional<data::KnownPictures> from_entry(const at::Tensor& entry);

}  // namespace vlm::train

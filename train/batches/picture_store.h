// Features of the training pictures: encoded once, then read from the cache on disk.
//
//   worker threads: content key ─► find ─► features, so that the picture isn't even decoded
//   training loop:  Batch ─► features_of ─► [ΣL, W] in the order of the tokens that stand for
//   pictures in the batch
//
// The key of an entry is made of the files' content, the processor's settings, and the vision
// weights and settings of the model. A separate thread writes entries; the cache is bounded, shared
// by runs and safe against crashes (vlm/io/feature_cache.h). The pictures of a sample are always
// encoded together, and separately from those of other samples, so that features don't depend on
// the batch and a resumed run is exact. Without a cache (trained or augmented pictures) a store
// only encodes.
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
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"

namespace vlm::train {

class PictureStore : public data::PictureLookup {
 public:
  // `cache` may be null. The model's weights are hashed here.
  PictureStore(std::shared_ptr<FeatureCache> cache, const VisionLanguageModel& model,
               const Processor& processor);
  ~PictureStore() override;
  PictureStore(const PictureStore&) = delete;
  PictureStore& operator=(const PictureStore&) = delete;

  // Thread-safe.
  std::optional<data::KnownPictures> find(const std::string& key) const override;

  // Features of the batch; undefined when it has no pictures. Pictures without features are
  // encoded, and their features go into the cache.
  at::Tensor features_of(VisionLanguageModel& model, const data::Batch& batch);

  // Frees the weights of the model's vision encoder, except those in `kept`, to save memory while
  // all features come from the cache. If a picture is missing there, `reload` loads the weights
  // again, and they are kept from then on. Freed weights are empty tensors in named_parameters().
  void release_tower(VisionLanguageModel& model, const std::set<std::string>& kept,
                     std::function<ModelPtr()> reload);
  // Loads the freed weights again. Throws Error when `reload` gives other weights than were freed.
  void restore_tower(VisionLanguageModel& model);

  bool has_cache() const { return cache_ != nullptr; }
  std::int64_t encoded() const { return encoded_; }  // samples whose pictures were encoded
  bool is_released() const { return static_cast<bool>(reload_); }

 private:
  at::Tensor features_of(VisionLanguageModel& model, const data::SamplePictures& pictures);
  void store_features(const data::SamplePictures& pictures, const at::Tensor& features);
  std::string entry_key(const std::string& content) const;
  void write_entries();

  std::shared_ptr<FeatureCache> cache_;
  std::string settings_;
  std::int64_t encoded_ = 0;
  std::function<ModelPtr()> reload_;
  std::set<std::string> kept_;
  std::string released_;    // digest of the freed weights
  bool is_needed_ = false;  // a picture was missing while the weights were freed

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<std::string, at::Tensor>> to_write_;
  bool is_stopping_ = false;
  std::thread writer_;
};

// Features of a batch's pictures without a store; all pictures without features are encoded in one
// call.
at::Tensor encode_pictures(VisionLanguageModel& model, const data::Batch& batch);

// True when weights that picture features depend on are trained.
bool trains_pictures(const VisionLanguageModel& model);

// Packs texts and features into one tensor of bytes, the form of cache entries, and back.
at::Tensor to_entry(const data::KnownPictures& pictures);
std::optional<data::KnownPictures> from_entry(const at::Tensor& entry);

}  // namespace vlm::train

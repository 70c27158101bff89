// A model that says what it is about to read: so that something can be put in its way.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vlm/models/interface/model.h"

namespace vlm {

// `watch` sees ids [B, T] before the model embeds them, `watch_head` the hidden states [.., C]
// before it computes logits of them.
class WatchedModel : public VisionLanguageModel {
 public:
  using Watch = std::function<void(const at::Tensor&)>;

  WatchedModel(
      ModelPtr inner, Watch watch, Watch watch_head = [](const at::Tensor&) {})
      : inner_(std::move(inner)), watch_(std::move(watch)), watch_head_(std::move(watch_head)) {
    units_at_once = inner_->units_at_once;
  }
  torch::nn::Module& module() override { return inner_->module(); }
  const torch::nn::Module& module() const override { return inner_->module(); }
  at::Tensor encode(const Pixels& pixels) override { return inner_->encode(pixels); }
  at::Tensor embed(const at::Tensor& ids, const at::Tensor& features) override {
    watch_(ids);
    return inner_->embed(ids, features);
  }
  at::Tensor embed_tokens(const at::Tensor& ids) override {
    watch_(ids);
    return inner_->embed_tokens(ids);
  }
  at::Tensor decode(const at::Tensor& x, const at::Tensor& mask, KvCache* cache,
                    const at::Tensor& positions) override {
    return inner_->decode(x, mask, cache, positions);
  }
  at::Tensor decode_packed(const at::Tensor& x, const std::vector<Segment>& all,
                           const at::Tensor& positions) override {
    return inner_->decode_packed(x, all, positions);
  }
  at::Tensor logits(const at::Tensor& hidden) override {
    watch_head_(hidden);
    return inner_->logits(hidden);
  }
  const torch::nn::Module& output_head() const override { return inner_->output_head(); }
  std::vector<std::int64_t> media_token_ids() const override { return inner_->media_token_ids(); }
  std::map<std::string, std::string> parts() const override { return inner_->parts(); }
  std::int64_t vocab_size() const override { return inner_->vocab_size(); }
  std::int64_t max_positions() const override { return inner_->max_positions(); }
  std::int64_t switch_length() const override { return inner_->switch_length(); }
  KvCacheShape cache_shape() const override { return inner_->cache_shape(); }
  NamedTensors weights() const override { return inner_->weights(); }
  NamedTensors picture_weights() const override { return inner_->picture_weights(); }
  std::string picture_settings() const override { return inner_->picture_settings(); }
  std::map<std::string, std::string> tied_weights() const override {
    return inner_->tied_weights();
  }
  void tie_weights() override { inner_->tie_weights(); }
  double initializer_range() const override { return inner_->initializer_range(); }
  std::string canonical_key(const std::string& key) const override {
    return inner_->canonical_key(key);
  }
  at::Device device() const override { return inner_->device(); }
  at::ScalarType dtype() const override { return inner_->dtype(); }

 private:
  ModelPtr inner_;
  Watch watch_, watch_head_;
};

}  // namespace vlm

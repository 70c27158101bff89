// Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a vision encoder for pictures of any size, a Qwen decoder
// whose positions are time, row and column, and an output head.
//
// Registered modules carry the names of transformers 5; published files of the first two have older
// ones (`visual.…`, `model.layers.…`), which are read and written. Reference:
// Qwen2VLForConditionalGeneration and its two successors, transformers 5.23.
#pragma once

#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/models/decoder/decoder.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/parts/tied_head.h"
#include "vlm/models/qwen_vl/qwen_vl_config.h"

namespace vlm {

class QwenVlBody;

class QwenVl : public VisionLanguageModel, public torch::nn::Module {
 public:
  explicit QwenVl(const QwenVlConfig& config);

  torch::nn::Module& module() override { return *this; }
  const torch::nn::Module& module() const override { return *this; }

  at::Tensor encode(const Pixels& pixels) override;
  at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& features) override;
  at::Tensor embed_tokens(const at::Tensor& input_ids) override;
  at::Tensor decode(const at::Tensor& embeddings, const at::Tensor& attention_mask, KvCache* cache,
                    const at::Tensor& positions = {}) override;
  at::Tensor decode_packed(const at::Tensor& embeddings, const std::vector<Segment>& segments,
                           const at::Tensor& positions = {}) override;
  at::Tensor logits(const at::Tensor& hidden) override;
  const torch::nn::Module& output_head() const override { return *lm_head_; }

  std::vector<std::int64_t> media_token_ids() const override;
  std::map<std::string, std::string> parts() const override {
    return {{"vision_model", "model.visual"},
            {"connector", "model.visual.merger"},
            {"text_model", "model.language_model"},
            {"lm_head", "lm_head"}};
  }
  std::int64_t vocab_size() const override { return config_.text_config.vocab_size; }
  std::int64_t max_positions() const override {
    return config_.text_config.max_position_embeddings;
  }
  KvCacheShape cache_shape() const override;
  NamedTensors weights() const override { return tie_->weights(*this); }
  NamedTensors picture_weights() const override;
  std::string picture_settings() const override;
  std::map<std::string, std::string> tied_weights() const override { return tie_->tied_weights(); }
  void tie_weights() override { tie_->tie_weights(); }
  double initializer_range() const override { return config_.text_config.initializer_range; }
  std::string canonical_key(const std::string& key) const override;
  std::string published_key(const std::string& name) const override;

  at::Device device() const override;
  at::ScalarType dtype() const override;

  const QwenVlConfig& config() const { return config_; }

 private:
  QwenVlConfig config_;
  std::shared_ptr<QwenVlBody> model_;
  std::shared_ptr<Linear> lm_head_;
  std::optional<TiedHead> tie_;
};

}  // namespace vlm

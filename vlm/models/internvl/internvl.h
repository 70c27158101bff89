// InternVL2.5, 3 and 3.5 in the layout of transformers: InternViT, pixel shuffle with an MLP, a
// decoder of Qwen2, Qwen3 or Llama, and an output head.
//
// Registered modules carry the names of transformers 5; published files have older ones
// (`vision_tower.…`, `language_model.model.…`), which are read and written. Reference:
// InternVLForConditionalGeneration, transformers 5.23.
#pragma once

#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/models/decoder/decoder.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/internvl/internvl_config.h"
#include "vlm/models/parts/tied_head.h"

namespace vlm {

class InternVlBody;

class InternVl : public VisionLanguageModel, public torch::nn::Module {
 public:
  explicit InternVl(const InternVlConfig& config);

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

  // The vision encoder alone: [N, 3, S, S] → [N, P, C].
  at::Tensor encode_patches(const at::Tensor& tiles);

  std::vector<std::int64_t> media_token_ids() const override { return {config_.image_token_id}; }
  std::map<std::string, std::string> parts() const override {
    return {{"vision_model", "model.vision_tower"},
            {"connector", "model.multi_modal_projector"},
            {"text_model", "model.language_model"},
            {"lm_head", "lm_head"}};
  }
  std::int64_t vocab_size() const override { return config_.text_config.vocab_size; }
  std::int64_t max_positions() const override {
    return config_.text_config.max_position_embeddings;
  }
  std::int64_t switch_length() const override;
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

  const InternVlConfig& config() const { return config_; }

 private:
  InternVlConfig config_;
  std::shared_ptr<InternVlBody> model_;
  std::shared_ptr<Linear> lm_head_;
  std::optional<TiedHead> tie_;
};

}  // namespace vlm

// SmolVLM2, the first SmolVLM and Idefics3: SigLIP encoder, pixel-shuffle connector, decoder,
// output head.
//
// The three have the same graph; their files differ in names of classes, defaults and processors.
// Registered modules carry Hugging Face's names, so named_parameters() equals the keys of the
// published files. Reference: SmolVLMForConditionalGeneration / Idefics3ForConditionalGeneration,
// transformers 5.23.
#pragma once

#include <torch/nn/module.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/models/decoder/decoder.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/parts/siglip.h"
#include "vlm/models/parts/tied_head.h"

namespace vlm {

struct SmolVlmConfig {
  std::int64_t image_token_id = 128257;
  std::int64_t scale_factor = 2;
  bool tie_word_embeddings = false;
  SiglipConfig vision_config;
  DecoderConfig text_config;

  // From a parsed config.json. Throws Error naming `where` and the key for values that can't work.
  static SmolVlmConfig parse(const Json& json, const std::string& where);

  // Tokens that one tile becomes.
  std::int64_t image_seq_len() const;
};

class SmolVlmModelBody;

class SmolVlm : public VisionLanguageModel, public torch::nn::Module {
 public:
  explicit SmolVlm(const SmolVlmConfig& config);

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

  // Tiles [N, 3, S, S] → their features [N, L, C]. `tile_mask` [N, S, S] bool, true = a real pixel;
  // undefined: all real.
  at::Tensor encode_tiles(const at::Tensor& pixel_values, const at::Tensor& tile_mask);
  // The vision encoder alone: [N, 3, S, S] → [N, P, C].
  at::Tensor encode_patches(const at::Tensor& pixel_values, const at::Tensor& tile_mask);

  at::Device device() const override;
  at::ScalarType dtype() const override;
  std::vector<std::int64_t> media_token_ids() const override { return {config_.image_token_id}; }
  std::map<std::string, std::string> parts() const override {
    return {{"vision_model", "model.vision_model"},
            {"connector", "model.connector"},
            {"text_model", "model.text_model"},
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

  const SmolVlmConfig& config() const { return config_; }

 private:
  SmolVlmConfig config_;
  std::shared_ptr<SmolVlmModelBody> model_;
  std::shared_ptr<Linear> lm_head_;
  std::optional<TiedHead> tie_;
};

}  // namespace vlm

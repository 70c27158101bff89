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

#include "vlm/models/decoder/decoder.h"
#include "vlm/models/model.h"
#include "vlm/models/siglip.h"

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

  at::Tensor encode_images(const at::Tensor& pixel_values, const at::Tensor& tile_mask) override;
  at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& image_features) override;
  at::Tensor embed_tokens(const at::Tensor& input_ids) override;
  at::Tensor decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                    KvCache* cache) override;
  at::Tensor decode_packed(const at::Tensor& embeddings,
                           const std::vector<Segment>& segments) override;
  at::Tensor logits(const at::Tensor& hidden) override;
  const torch::nn::Module& output_head() const override { return *lm_head_; }

  // The vision encoder alone: [N, 3, S, S] → [N, P, C].
  at::Tensor encode_patches(const at::Tensor& pixel_values, const at::Tensor& tile_mask);

  at::Device device() const override;
  at::ScalarType dtype() const override;
  std::int64_t image_token_id() const override { return config_.image_token_id; }
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
  NamedTensors weights() const override;
  NamedTensors picture_weights() const override;
  std::string picture_settings() const override;
  std::map<std::string, std::string> tied_weights() const override;
  void tie_weights() override;
  double initializer_range() const override { return config_.text_config.initializer_range; }
  std::string canonical_key(const std::string& key) const override;

  const SmolVlmConfig& config() const { return config_; }

 private:
  // Whether head and embeddings share one weight, or will after loading.
  bool is_tied() const;

  SmolVlmConfig config_;
  bool is_filled_ = false;  // tie_weights was called
  std::shared_ptr<SmolVlmModelBody> model_;
  std::shared_ptr<Linear> lm_head_;
};

// [N, G·G, C] → [N, (G/s)², C·s²]: each s × s neighbourhood becomes one token.
at::Tensor shuffle_pixels(const at::Tensor& patches, std::int64_t scale_factor);

}  // namespace vlm

// SmolVLM2, the first SmolVLM and Idefics3: SigLIP encoder, pixel-shuffle connector, decoder,
// output head.
//
// The three have the same graph; their files differ in names of classes, defaults and processors.
// Registered modules carry Hugging Face's names, so named_parameters() equals the keys of the
// published files. Reference: SmolVLMForConditionalGeneration / Idefics3ForConditionalGeneration,
// transformers 5.23.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/models/parts/decoder_model.h"
#include "vlm/models/smolvlm/smolvlm_config.h"

namespace vlm {

class SmolVlmModelBody;

class SmolVlm : public DecoderModel {
 public:
  explicit SmolVlm(const SmolVlmConfig& config);

  at::Tensor encode(const Pixels& pixels) override;

  // Tiles [N, 3, S, S] → their features [N, L, C]. `tile_mask` [N, S, S] bool, true = a real pixel;
  // undefined: all real.
  at::Tensor encode_tiles(const at::Tensor& pixel_values, const at::Tensor& tile_mask);
  // The vision encoder alone: [N, 3, S, S] → [N, P, C].
  at::Tensor encode_patches(const at::Tensor& pixel_values, const at::Tensor& tile_mask);

  std::vector<std::int64_t> media_token_ids() const override { return {config_.image_token_id}; }
  std::map<std::string, std::string> parts() const override {
    return {{"vision_model", "model.vision_model"},
            {"connector", "model.connector"},
            {"text_model", "model.text_model"},
            {"lm_head", "lm_head"}};
  }
  NamedTensors picture_weights() const override;
  std::string picture_settings() const override;
  std::string canonical_key(const std::string& key) const override;

  const SmolVlmConfig& config() const { return config_; }

 private:
  SmolVlmConfig config_;
  std::shared_ptr<SmolVlmModelBody> model_;
};

}  // namespace vlm

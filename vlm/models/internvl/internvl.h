// InternVL2.5, 3 and 3.5 in the layout of transformers: InternViT, pixel shuffle with an MLP, a
// decoder of Qwen2, Qwen3 or Llama, and an output head.
//
// Registered modules carry the names of transformers 5; published files have older ones
// (`vision_tower.…`, `language_model.model.…`), which are read and written. Reference:
// InternVLForConditionalGeneration, transformers 5.23.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/models/internvl/internvl_config.h"
#include "vlm/models/parts/decoder_model.h"

namespace vlm {

class InternVlBody;

class InternVl : public DecoderModel {
 public:
  explicit InternVl(const InternVlConfig& config);

  at::Tensor encode(const Pixels& pixels) override;

  // The vision encoder alone: [N, 3, S, S] → [N, P, C].
  at::Tensor encode_patches(const at::Tensor& tiles);

  std::vector<std::int64_t> media_token_ids() const override { return {config_.image_token_id}; }
  std::map<std::string, std::string> parts() const override {
    return {{"vision_model", "model.vision_tower"},
            {"connector", "model.multi_modal_projector"},
            {"text_model", "model.language_model"},
            {"lm_head", "lm_head"}};
  }
  NamedTensors picture_weights() const override;
  std::string picture_settings() const override;
  std::string canonical_key(const std::string& key) const override;
  std::string published_key(const std::string& name) const override;

  const InternVlConfig& config() const { return config_; }

 private:
  InternVlConfig config_;
  std::shared_ptr<InternVlBody> model_;
};

}  // namespace vlm

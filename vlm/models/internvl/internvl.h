// InternVL2, 2.5, 3 and 3.5: InternViT, pixel shuffle with an MLP, a decoder of Qwen2, Qwen3, Llama
// or InternLM2, and an output head.
//
// In the layout of transformers registered modules carry the names of transformers 5; published
// files have older ones (`vision_tower.…`, `language_model.model.…`), which are read and written.
// In the original layout modules are named as in its files (`vision_model.…`, `mlp1.…`), so that
// weights and adapters keep their keys, and what is one matrix there (attn.qkv, attention.wqkv)
// stays one. Reference: InternVLForConditionalGeneration, transformers 5.23.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/models/internvl/internvl_config.h"
#include "vlm/models/parts/decoder_model.h"

namespace vlm {

class InternVit;
class InternVlConnector;

class InternVl : public DecoderModel {
 public:
  explicit InternVl(const InternVlConfig& config);

  at::Tensor encode(const Pixels& pixels) override;

  // The vision encoder alone: [N, 3, S, S] → [N, P, C].
  at::Tensor encode_patches(const at::Tensor& tiles);

  std::vector<std::int64_t> media_token_ids() const override { return {config_.image_token_id}; }
  std::map<std::string, std::string> parts() const override;
  NamedTensors picture_weights() const override;
  std::string picture_settings() const override;
  std::string canonical_key(const std::string& key) const override;
  std::string published_key(const std::string& name) const override;

  const InternVlConfig& config() const { return config_; }

 private:
  void build_original(const std::shared_ptr<TextDecoder>& decoder);

  InternVlConfig config_;
  std::shared_ptr<InternVit> vision_;
  std::shared_ptr<InternVlConnector> connector_;
};

}  // namespace vlm

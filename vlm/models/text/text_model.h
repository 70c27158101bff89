// A language model without pictures: Llama, SmolLM2, Qwen2.5, Qwen3, Phi-4-mini.
//
//   ids [B, T] ─► embed ─► decode ⇄ KvCache ─► hidden [B, T, C] ─► logits [.., V]
//
// It takes part wherever a vision-language model does, as long as nobody shows it a picture.
// Registered modules carry Hugging Face's names ("model.layers.0.…", "lm_head"). Reference:
// LlamaForCausalLM, Qwen2's, Qwen3's and Phi3's, transformers 5.23.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/models/parts/decoder_model.h"

namespace vlm {

struct TextModelConfig {
  bool tie_word_embeddings = false;
  DecoderConfig decoder;

  // From a parsed config.json. Throws Error naming `where` and the key for values that can't work.
  static TextModelConfig parse(const Json& json, const std::string& where);
};

class TextModel : public DecoderModel {
 public:
  explicit TextModel(const TextModelConfig& config);

  at::Tensor encode(const Pixels& pixels) override;

  std::vector<std::int64_t> media_token_ids() const override { return {}; }
  std::map<std::string, std::string> parts() const override {
    return {{"text_model", "model"}, {"lm_head", "lm_head"}};
  }
  NamedTensors picture_weights() const override { return {}; }
  std::string picture_settings() const override { return ""; }
  std::string canonical_key(const std::string& key) const override;
};

}  // namespace vlm

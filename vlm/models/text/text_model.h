// A language model without pictures: Llama, SmolLM2, Qwen2.5, Qwen3, Phi-4-mini.
//
//   ids [B, T] ─► embed ─► decode ⇄ KvCache ─► hidden [B, T, C] ─► logits [.., V]
//
// It takes part wherever a vision-language model does, as long as nobody shows it a picture.
// Registered modules carry Hugging Face's names ("model.layers.0.…", "lm_head"). Reference:
// LlamaForCausalLM, Qwen2's, Qwen3's and Phi3's, transformers 5.23.
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

namespace vlm {

struct TextModelConfig {
  bool tie_word_embeddings = false;
  DecoderConfig decoder;

  // From a parsed config.json. Throws Error naming `where` and the key for values that can't work.
  static TextModelConfig parse(const Json& json, const std::string& where);
};

class TextModel : public VisionLanguageModel, public torch::nn::Module {
 public:
  explicit TextModel(const TextModelConfig& config);

  torch::nn::Module& module() override { return *this; }
  const torch::nn::Module& module() const override { return *this; }

  at::Tensor encode(const Pixels& pixels) override;
  at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& features) override;
  at::Tensor embed_tokens(const at::Tensor& input_ids) override;
  at::Tensor decode(const at::Tensor& embeddings, const at::Tensor& attention_mask, KvCache* cache,
                    const at::Tensor& positions = {}) override;
  at::Tensor decode_packed(const at::Tensor& embeddings, const std::vector<Segment>& segments,
                           const at::Tensor& positions = {}) override;
  at::Tensor logits(const at::Tensor& hidden) override { return lm_head_->forward(hidden); }
  const torch::nn::Module& output_head() const override { return *lm_head_; }

  at::Device device() const override { return model_->options().device(); }
  at::ScalarType dtype() const override;
  std::vector<std::int64_t> media_token_ids() const override { return {}; }
  std::map<std::string, std::string> parts() const override {
    return {{"text_model", "model"}, {"lm_head", "lm_head"}};
  }
  std::int64_t vocab_size() const override { return config_.decoder.vocab_size; }
  std::int64_t max_positions() const override { return config_.decoder.max_position_embeddings; }
  std::int64_t switch_length() const override { return model_->switch_length(); }
  KvCacheShape cache_shape() const override { return model_->cache_shape(); }
  NamedTensors weights() const override { return tie_->weights(*this); }
  NamedTensors picture_weights() const override { return {}; }
  std::string picture_settings() const override { return ""; }
  std::map<std::string, std::string> tied_weights() const override { return tie_->tied_weights(); }
  void tie_weights() override { tie_->tie_weights(); }
  double initializer_range() const override { return config_.decoder.initializer_range; }
  std::string canonical_key(const std::string& key) const override;

 private:
  TextModelConfig config_;
  std::shared_ptr<TextDecoder> model_;
  std::shared_ptr<Linear> lm_head_;
  std::optional<TiedHead> tie_;
};

}  // namespace vlm

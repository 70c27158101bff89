#include "vlm/models/text/text_model.h"

#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/upload.h"

namespace vlm {

TextModelConfig TextModelConfig::parse(const Json& json, const std::string& where) {
  TextModelConfig config{.decoder = DecoderConfig::defaults_for(&json, where)};
  Fields fields = config.decoder.fields();
  fields.push_back({"tie_word_embeddings", &config.tie_word_embeddings});
  read_fields(json, fields, UnknownKeys::kIgnore, where);
  config.decoder.complete(json, where);
  return config;
}

TextModel::TextModel(const TextModelConfig& config) : config_(config) {
  model_ = register_module("model", std::make_shared<TextDecoder>(config.decoder));
  lm_head_ = register_module("lm_head", std::make_shared<Linear>(config.decoder.hidden_size,
                                                                 config.decoder.vocab_size, false));
}

at::Tensor TextModel::encode_images(const at::Tensor&, const at::Tensor&) {
  throw Error({.what = "a model of text alone takes no pictures"});
}

at::Tensor TextModel::embed(const at::Tensor& input_ids, const at::Tensor& image_features) {
  TORCH_CHECK(!image_features.defined(), "a model of text alone takes no features of pictures");
  return embed_tokens(input_ids);
}

at::Tensor TextModel::embed_tokens(const at::Tensor& input_ids) {
  const at::Tensor rows = model_->embed_tokens()->forward(upload(input_ids, device()));
  // On a GPU weights may be float32 and what flows between them bfloat16: full fine-tuning.
  const bool is_wide = device().is_cpu() || product_dtype == at::kFloat;
  return rows.to(is_wide ? dtype() : product_dtype);
}

at::Tensor TextModel::decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                             KvCache* cache) {
  return model_->forward(embeddings, attention_mask, cache,
                         gradient_checkpointing && is_training() && !cache);
}

at::Tensor TextModel::decode_packed(const at::Tensor& embeddings,
                                    const std::vector<Segment>& segments) {
  return model_->forward_packed(embeddings, segments, gradient_checkpointing && is_training());
}

at::ScalarType TextModel::dtype() const {
  return c10::typeMetaToScalarType(model_->options().dtype());
}

bool TextModel::is_tied() const {
  return config_.tie_word_embeddings &&
         (!is_filled_ || lm_head_->weight.is_same(model_->embed_tokens()->weight));
}

NamedTensors TextModel::weights() const {
  NamedTensors weights;
  const bool has_separate_head = !is_tied();
  for (const auto& item : named_parameters()) {
    const bool is_separate = has_separate_head || item.key() != "lm_head.weight";
    if (is_separate && !is_lora_parameter(item.key())) {
      weights.emplace_back(item.key(), item.value());
    }
  }
  return weights;
}

std::map<std::string, std::string> TextModel::tied_weights() const {
  if (!is_tied()) return {};
  return {{"lm_head.weight", "model.embed_tokens.weight"}};
}

void TextModel::tie_weights() {
  is_filled_ = true;
  if (!config_.tie_word_embeddings) return;
  const at::Tensor& embedding = model_->embed_tokens()->weight;
  if (lm_head_->weight.is_same(embedding)) return;
  if (!lm_head_->weight.is_alias_of(embedding) && !lm_head_->weight.equal(embedding)) {
    log_warning("the config ties lm_head to the embeddings but the weights differ: kept apart");
    config_.tie_word_embeddings = false;
    return;
  }
  lm_head_->share_weight(embedding);
}

std::string TextModel::canonical_key(const std::string& key) const {
  const std::string wrapper = "base_model.model.";  // saved from inside a PEFT wrapper
  return key.starts_with(wrapper) ? key.substr(wrapper.size()) : key;
}

}  // namespace vlm

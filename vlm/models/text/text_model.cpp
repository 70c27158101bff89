#include "vlm/models/text/text_model.h"

#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
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
  tie_.emplace(lm_head_, model_->embed_tokens(), "model.embed_tokens.weight",
               config.tie_word_embeddings);
}

at::Tensor TextModel::encode(const Pixels&) {
  throw Error({.what = "a model of text alone takes no pictures"});
}

at::Tensor TextModel::embed(const at::Tensor& input_ids, const at::Tensor& features) {
  TORCH_CHECK(!features.defined(), "a model of text alone takes no features of pictures");
  return embed_tokens(input_ids);
}

at::Tensor TextModel::embed_tokens(const at::Tensor& input_ids) {
  return model_->embed_tokens()->forward(upload(input_ids, device())).to(activation_dtype(*this));
}

at::Tensor TextModel::decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                             KvCache* cache, const at::Tensor& positions) {
  check_counted(positions);
  return model_->forward(embeddings, attention_mask, cache,
                         gradient_checkpointing && is_training() && !cache);
}

at::Tensor TextModel::decode_packed(const at::Tensor& embeddings,
                                    const std::vector<Segment>& segments,
                                    const at::Tensor& positions) {
  check_counted(positions);
  return model_->forward_packed(embeddings, segments, gradient_checkpointing && is_training());
}

at::ScalarType TextModel::dtype() const {
  return c10::typeMetaToScalarType(model_->options().dtype());
}

std::string TextModel::canonical_key(const std::string& key) const {
  const std::string wrapper = "base_model.model.";  // saved from inside a PEFT wrapper
  return key.starts_with(wrapper) ? key.substr(wrapper.size()) : key;
}

}  // namespace vlm

#include "vlm/models/text/text_model.h"

#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/models/parts/checkpoint_keys.h"

namespace vlm {

TextModelConfig TextModelConfig::parse(const Json& json, const std::string& where) {
  TextModelConfig config{.decoder = DecoderConfig::defaults_for(&json, where)};
  Fields fields = config.decoder.fields();
  fields.push_back({"tie_word_embeddings", &config.tie_word_embeddings});
  read_fields(json, fields, UnknownKeys::kIgnore, where);
  config.decoder.complete(json, where);
  return config;
}

TextModel::TextModel(const TextModelConfig& config) {
  auto decoder = register_module("model", std::make_shared<TextDecoder>(config.decoder));
  set_decoder(decoder, "model", config.tie_word_embeddings);
}

at::Tensor TextModel::encode(const Pixels&) {
  throw Error({.what = "a model of text alone takes no pictures"});
}

std::string TextModel::canonical_key(const std::string& key) const {
  return to_name(key);
}

}  // namespace vlm

#include "vlm/models/smolvlm/smolvlm_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/decoder/size_checks.h"

namespace vlm {
namespace {

void check_vision(const SiglipConfig& config, const std::string& where) {
  require_side(config.hidden_size, where + ": hidden_size");
  require_side(config.intermediate_size, where + ": intermediate_size");
  require_side(config.num_hidden_layers, where + ": num_hidden_layers", kMaxLayers);
  require_side(config.num_attention_heads, where + ": num_attention_heads");
  require(config.num_channels == 3, where + ": num_channels", "unsupported value",
          config.num_channels, "3");
  require_side(config.image_size, where + ": image_size", 1 << 14);
  require_side(config.patch_size, where + ": patch_size", config.image_size);
  require(config.hidden_size % config.num_attention_heads == 0, where + ": hidden_size",
          "not divisible by num_attention_heads", config.hidden_size,
          concat("a multiple of ", config.num_attention_heads));
  require_layers(config.num_hidden_layers, config.hidden_size, config.intermediate_size, where);
  require_matrix(config.hidden_size, 3 * config.patch_size * config.patch_size, where,
                 "hidden_size and patch_size");
  require_matrix(config.grid_side() * config.grid_side(), config.hidden_size, where,
                 "the patch grid and hidden_size");
}

}  // namespace

SmolVlmConfig SmolVlmConfig::parse(const Json& json, const std::string& where) {
  SmolVlmConfig config;
  const auto text_json = json.is_object() ? json.find("text_config") : json.end();
  const bool has_text = json.is_object() && text_json != json.end() && text_json->is_object();
  const std::string text_where = where + ": text_config";
  config.text_config = DecoderConfig::defaults_for(has_text ? &*text_json : nullptr, text_where);
  if (!has_text) config.text_config.rms_norm_eps = 1e-5;  // the class's default without the part
  Fields vision = config.vision_config.fields();
  Fields text = config.text_config.fields();
  const Fields fields = {{"image_token_id", &config.image_token_id},
                         {"scale_factor", &config.scale_factor},
                         {"tie_word_embeddings", &config.tie_word_embeddings},
                         {"vision_config", &vision},
                         {"text_config", &text}};
  read_fields(json, fields, UnknownKeys::kIgnore, where);
  check_vision(config.vision_config, where + ": vision_config");
  config.text_config.complete(has_text ? *text_json : Json::object(), text_where);
  require_side(config.scale_factor, where + ": scale_factor", config.vision_config.grid_side());
  require(config.vision_config.grid_side() % config.scale_factor == 0, where + ": scale_factor",
          "does not divide the patch grid", config.scale_factor,
          concat("a divisor of ", config.vision_config.grid_side()));
  const std::int64_t cell = config.scale_factor * config.scale_factor;
  require_matrix(cell * config.vision_config.hidden_size, config.text_config.hidden_size, where,
                 "scale_factor and both hidden_size");
  require(config.image_token_id >= 0 && config.image_token_id < config.text_config.vocab_size,
          where + ": image_token_id", "outside the vocabulary", config.image_token_id,
          concat("0 to ", config.text_config.vocab_size - 1));
  return config;
}

std::int64_t SmolVlmConfig::image_seq_len() const {
  const std::int64_t cells = vision_config.grid_side() / scale_factor;
  return cells * cells;
}

}  // namespace vlm

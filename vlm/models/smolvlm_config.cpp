// config.json of SmolVLM2, the first SmolVLM and Idefics3 → SmolVlmConfig.
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/smolvlm.h"

namespace vlm {
namespace {

// Sides and counts beyond these are no model of this kind but a broken file.
constexpr std::int64_t kMaxSide = 1 << 20;
constexpr std::int64_t kMaxLayers = 1 << 10;

void require(bool holds, const std::string& where, const std::string& what, std::int64_t got,
             const std::string& wanted) {
  if (holds) return;
  throw Error({.what = what, .where = where, .got = concat(got), .wanted = wanted});
}

void require_side(std::int64_t value, const std::string& where, std::int64_t most = kMaxSide) {
  require(value >= 1 && value <= most, where, "value out of range", value, concat("1 to ", most));
}

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
}

void check_text(const LlamaConfig& config, const std::string& where) {
  require_side(config.vocab_size, where + ": vocab_size", 1 << 24);
  require_side(config.hidden_size, where + ": hidden_size");
  require_side(config.intermediate_size, where + ": intermediate_size");
  require_side(config.num_hidden_layers, where + ": num_hidden_layers", kMaxLayers);
  require_side(config.num_attention_heads, where + ": num_attention_heads");
  require_side(config.kv_heads(), where + ": num_key_value_heads", config.num_attention_heads);
  require(config.num_attention_heads % config.kv_heads() == 0, where + ": num_key_value_heads",
          "does not divide num_attention_heads", config.kv_heads(),
          concat("a divisor of ", config.num_attention_heads));
  require(config.head_size() >= 2 && config.head_size() % 2 == 0 && config.head_size() <= kMaxSide,
          where + ": head_dim", "rotary positions need an even head_dim", config.head_size(),
          "an even number");
  require_side(config.max_position_embeddings, where + ": max_position_embeddings", 1LL << 32);
}

// transformers 5 keeps theta in rope_parameters, earlier files in rope_theta with an optional
// rope_scaling.
void read_rope(const Json& text, LlamaConfig& config, const std::string& where) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = text.find(key);
    if (rope == text.end() || !rope->is_object()) continue;
    std::string type = "default";
    const Fields fields = {{"type", &type, "", {"default"}},  // rope_type's older name
                           {"rope_type", &type, "", {"default"}},
                           {"rope_theta", &config.rope_theta}};
    read_fields(*rope, fields, UnknownKeys::kIgnore, where + ": " + key);
  }
  if (!(config.rope_theta > 0)) {
    throw Error({.what = "value out of range",
                 .where = where + ": rope_theta",
                 .got = concat(config.rope_theta),
                 .wanted = "a positive number"});
  }
}

}  // namespace

SmolVlmConfig SmolVlmConfig::parse(const Json& json, const std::string& where) {
  SmolVlmConfig config;
  Fields vision = config.vision_config.fields();
  Fields text = config.text_config.fields();
  const Fields fields = {{"image_token_id", &config.image_token_id},
                         {"scale_factor", &config.scale_factor},
                         {"tie_word_embeddings", &config.tie_word_embeddings},
                         {"vision_config", &vision},
                         {"text_config", &text}};
  const auto text_json = json.is_object() ? json.find("text_config") : json.end();
  const bool has_text = json.is_object() && text_json != json.end() && text_json->is_object();
  if (!has_text)
    config.text_config.rms_norm_eps = 1e-5;  // the class's default when the part is absent
  read_fields(json, fields, UnknownKeys::kIgnore, where);
  if (has_text) read_rope(*text_json, config.text_config, where + ": text_config");

  check_vision(config.vision_config, where + ": vision_config");
  check_text(config.text_config, where + ": text_config");
  require_side(config.scale_factor, where + ": scale_factor", config.vision_config.grid_side());
  require(config.vision_config.grid_side() % config.scale_factor == 0, where + ": scale_factor",
          "does not divide the patch grid", config.scale_factor,
          concat("a divisor of ", config.vision_config.grid_side()));
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

// config.json of SmolVLM2, the first SmolVLM and Idefics3 → SmolVlmConfig.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/smolvlm/smolvlm.h"

namespace vlm {
namespace {

// Sides and counts beyond these are no model of this kind but a broken file.
constexpr std::int64_t kMaxSide = 1 << 20;
constexpr std::int64_t kMaxLayers = 1 << 10;
// Numbers of one matrix, and of those like it in all layers: sides that fit by themselves may still
// multiply to more memory than any machine has. A head of 2¹⁸ tokens and 2¹⁴ channels has 2³².
constexpr std::int64_t kMaxMatrix = 1LL << 33;
constexpr std::int64_t kMaxNumbers = 1LL << 38;

void require(bool holds, const std::string& where, const std::string& what, std::int64_t got,
             const std::string& wanted) {
  if (holds) return;
  throw Error({.what = what, .where = where, .got = concat(got), .wanted = wanted});
}

void require_side(std::int64_t value, const std::string& where, std::int64_t most = kMaxSide) {
  require(value >= 1 && value <= most, where, "value out of range", value, concat("1 to ", most));
}

void require_product(std::int64_t a, std::int64_t b, std::int64_t most, const std::string& where,
                     const std::string& names) {
  if (a <= most / b) return;
  throw Error({.what = names + " make too large a model",
               .where = where,
               .got = concat(a, " x ", b, " numbers"),
               .wanted = concat("at most ", most),
               .hint = "is the file damaged?"});
}

void require_matrix(std::int64_t rows, std::int64_t cols, const std::string& where,
                    const std::string& names) {
  require_product(rows, cols, kMaxMatrix, where, names);
}

// Both kinds of towers: their layers' largest matrices, one by one and together.
template <typename Config>
void require_layers(const Config& config, const std::string& where) {
  const std::int64_t side = std::max(config.intermediate_size, config.hidden_size);
  require_matrix(side, config.hidden_size, where, "intermediate_size and hidden_size");
  require_product(config.num_hidden_layers, side * config.hidden_size, kMaxNumbers, where,
                  "num_hidden_layers, intermediate_size and hidden_size");
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
  require_layers(config, where);
  require_matrix(config.hidden_size, 3 * config.patch_size * config.patch_size, where,
                 "hidden_size and patch_size");
  require_matrix(config.grid_side() * config.grid_side(), config.hidden_size, where,
                 "the patch grid and hidden_size");
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
  require_matrix(config.vocab_size, config.hidden_size, where, "vocab_size and hidden_size");
  require_layers(config, where);
  // At most 2²⁰ heads of 2²⁰ channels: their product can't overflow.
  require_matrix(config.num_attention_heads * config.head_size(), config.hidden_size, where,
                 "num_attention_heads, head_dim and hidden_size");
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

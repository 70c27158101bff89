#include "vlm/models/internvl/internvl_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/models/decoder/size_checks.h"

namespace vlm {

void require_flag(bool value, bool wanted, const std::string& where) {
  if (value == wanted) return;
  throw Error({.what = "unsupported value",
               .where = where,
               .got = value ? "true" : "false",
               .wanted = wanted ? "true" : "false"});
}

namespace {

// A side, or the equal sides of a square; null: the default stays.
void read_side(const Json& value, std::int64_t& side, const std::string& where) {
  if (value.is_null()) return;
  const bool is_pair = value.is_array() && value.size() == 2 && value[0] == value[1];
  const Json& number = is_pair ? value[0] : value;
  if (!number.is_number_integer()) {
    throw Error({.what = "unsupported value",
                 .where = where,
                 .got = value.dump(),
                 .wanted = "a number, or two equal ones"});
  }
  side = number.get<std::int64_t>();
}

// What changes the graph and stands in no published file.
void check_variants(const Json& json, const std::string& where) {
  std::string hidden_act;
  bool use_mask_token = false;
  bool use_mean_pooling = true, use_absolute_position_embeddings = true;
  std::int64_t channels = 3;
  read_fields(json,
              {{"hidden_act", &hidden_act, "", {"gelu"}},
               {"use_mask_token", &use_mask_token},
               {"use_mean_pooling", &use_mean_pooling},
               {"use_absolute_position_embeddings", &use_absolute_position_embeddings},
               {"num_channels", &channels}},
              UnknownKeys::kIgnore, where);
  require_flag(use_mask_token, false, where + ": use_mask_token");
  require_flag(use_mean_pooling, true, where + ": use_mean_pooling");
  require_flag(use_absolute_position_embeddings, true,
               where + ": use_absolute_position_embeddings");
  require(channels == 3, where + ": num_channels", "unsupported value", channels, "3");
}

InternVitConfig parse_vision(const Json& json, const std::string& where) {
  InternVitConfig config;
  Json image_size, patch_size;
  std::string norm_type = "layer_norm";
  read_fields(json,
              {{"hidden_size", &config.hidden_size},
               {"intermediate_size", &config.intermediate_size},
               {"num_hidden_layers", &config.num_hidden_layers},
               {"num_attention_heads", &config.num_attention_heads},
               {"attention_bias", &config.attention_bias},
               {"layer_norm_eps", &config.layer_norm_eps},
               {"norm_type", &norm_type, "", {"layer_norm", "rms_norm"}},
               {"use_qk_norm", &config.has_qk_norms},
               {"image_size", &image_size},
               {"patch_size", &patch_size}},
              UnknownKeys::kIgnore, where);
  read_side(image_size, config.image_size, where + ": image_size");
  read_side(patch_size, config.patch_size, where + ": patch_size");
  config.has_rms_norms = norm_type == "rms_norm";
  check_variants(json, where);
  check_vision(config, where);
  return config;
}

DecoderConfig parse_text(Json json, const std::string& where) {
  if (!json.contains("model_type")) json["model_type"] = "qwen2";
  std::string type;
  read_fields(json, {{"model_type", &type, "", {"llama", "qwen2", "qwen3"}}}, UnknownKeys::kIgnore,
              where);
  DecoderConfig text = DecoderConfig::defaults_for(&json, where);
  read_fields(json, text.fields(), UnknownKeys::kIgnore, where);
  text.complete(json, where);
  return text;
}

}  // namespace

void check_vision(const InternVitConfig& c, const std::string& where) {
  require_side(c.hidden_size, where + ": hidden_size");
  require_side(c.intermediate_size, where + ": intermediate_size");
  require_side(c.num_hidden_layers, where + ": num_hidden_layers", kMaxLayers);
  require_side(c.num_attention_heads, where + ": num_attention_heads");
  require(c.hidden_size % c.num_attention_heads == 0, where + ": num_attention_heads",
          "heads don't divide hidden_size", c.num_attention_heads,
          concat("a divisor of ", c.hidden_size));
  require_side(c.image_size, where + ": image_size", 1 << 14);
  require_side(c.patch_size, where + ": patch_size", c.image_size);
  require_layers(c.num_hidden_layers, c.hidden_size, c.intermediate_size, where);
  require_matrix(c.hidden_size, 3 * c.patch_size * c.patch_size, where,
                 "hidden_size and patch_size");
  require_matrix(c.grid_side() * c.grid_side() + 1, c.hidden_size, where,
                 "the patch grid and hidden_size");
}

std::int64_t parse_scale(double downsample_ratio, std::int64_t grid_side,
                         const std::string& where) {
  const double scale = downsample_ratio > 0 ? 1 / downsample_ratio : 0;
  const bool is_whole = scale >= 1 && scale <= static_cast<double>(grid_side) &&
                        std::abs(scale - std::nearbyint(scale)) < 1e-9;
  if (is_whole && grid_side % std::llround(scale) == 0) return std::llround(scale);
  throw Error({.what = "value out of range",
               .where = where,
               .got = concat(downsample_ratio),
               .wanted = concat("1 / n, where n divides the grid of ", grid_side, " patches")});
}

void check_connector(const InternVlConfig& config, const std::string& where) {
  require_matrix(config.scale * config.scale * config.vision_config.hidden_size,
                 config.text_config.hidden_size, where, "downsample_ratio and both hidden_size");
}

InternVlConfig InternVlConfig::parse(const Json& json, const std::string& where) {
  InternVlConfig config;
  double downsample_ratio = 0.5;
  std::string activation, strategy;
  Json vision, text, feature_layer;
  read_fields(json,
              {{"image_token_id", &config.image_token_id},
               {"downsample_ratio", &downsample_ratio},
               {"tie_word_embeddings", &config.tie_word_embeddings},
               {"projector_hidden_act", &activation, "", {"gelu"}},
               {"vision_feature_select_strategy", &strategy, "", {"default"}},
               {"vision_feature_layer", &feature_layer},
               {"vision_config", &vision},
               {"text_config", &text}},
              UnknownKeys::kIgnore, where);
  if (!feature_layer.is_null() && feature_layer != -1) {
    throw Error({.what = "unsupported value",
                 .where = where + ": vision_feature_layer",
                 .got = feature_layer.dump(),
                 .wanted = "-1"});
  }
  config.vision_config =
      parse_vision(vision.is_null() ? Json::object() : vision, where + ": vision_config");
  config.text_config = parse_text(text.is_null() ? Json::object() : text, where + ": text_config");
  config.scale =
      parse_scale(downsample_ratio, config.vision_config.grid_side(), where + ": downsample_ratio");
  check_connector(config, where);
  require(config.image_token_id >= 0 && config.image_token_id < config.text_config.vocab_size,
          where + ": image_token_id", "outside the vocabulary", config.image_token_id,
          concat("0 to ", config.text_config.vocab_size - 1));
  return config;
}

}  // namespace vlm

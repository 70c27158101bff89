#include "vlm/models/qwen_vl/qwen_vl_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/models/decoder/size_checks.h"

namespace vlm {
namespace {

QwenGeneration generation_of(const std::string& model_type) {
  if (model_type == "qwen2_5_vl") return QwenGeneration::k25;
  return model_type == "qwen3_vl" ? QwenGeneration::k3 : QwenGeneration::k2;
}

Fields vision_fields(QwenVisionConfig& c) {
  Fields fields = {{"depth", &c.depth},
                   {"num_heads", &c.num_heads},
                   {"in_channels", &c.in_channels},
                   {"in_chans", &c.in_channels},
                   {"patch_size", &c.patch_size},
                   {"spatial_merge_size", &c.spatial_merge_size},
                   {"temporal_patch_size", &c.temporal_patch_size},
                   {"initializer_range", &c.initializer_range}};
  if (c.generation == QwenGeneration::k2) {
    fields.insert(fields.end(), {{"embed_dim", &c.width}, {"hidden_size", &c.out_width}});
    return fields;
  }
  fields.insert(fields.end(), {{"hidden_size", &c.width},
                               {"intermediate_size", &c.intermediate},
                               {"out_hidden_size", &c.out_width}});
  if (c.generation == QwenGeneration::k25) {
    fields.insert(fields.end(), {{"window_size", &c.window_size},
                                 {"fullatt_block_indexes", &c.full_layers},
                                 {"tokens_per_second", &c.tokens_per_second}});
  } else {
    fields.insert(fields.end(), {{"num_position_embeddings", &c.num_position_embeddings},
                                 {"deepstack_visual_indexes", &c.deepstack_layers}});
  }
  return fields;
}

void set_defaults(QwenVisionConfig& c) {
  if (c.generation == QwenGeneration::k25) {
    c.width = 3584;
    c.intermediate = 3420;
  }
  if (c.generation == QwenGeneration::k3) {
    c.depth = 27;
    c.width = 1152;
    c.intermediate = 4304;
    c.patch_size = 16;
    c.deepstack_layers = {8, 16, 24};
  }
}

// The name that the MLP of each generation's files gives its activation.
std::string activation_of(QwenGeneration generation) {
  if (generation == QwenGeneration::k25) return "silu";
  return generation == QwenGeneration::k3 ? "gelu_pytorch_tanh" : "quick_gelu";
}

void check_layers(const std::vector<std::int64_t>& layers, std::int64_t depth,
                  const std::string& where) {
  for (const std::int64_t layer : layers) {
    require(layer >= 0 && layer < depth, where, "no such layer", layer, concat("0 to ", depth - 1));
  }
}

void check_vision(const QwenVisionConfig& c, const std::string& where) {
  require_side(c.depth, where + ": depth", kMaxLayers);
  require_side(c.width, where + ": hidden_size");
  require_side(c.intermediate, where + ": intermediate_size");
  require_side(c.num_heads, where + ": num_heads");
  require(c.in_channels == 3, where + ": in_channels", "unsupported value", c.in_channels, "3");
  require_side(c.patch_size, where + ": patch_size", 1 << 10);
  require_side(c.spatial_merge_size, where + ": spatial_merge_size", 16);
  require_side(c.temporal_patch_size, where + ": temporal_patch_size", 16);
  require(c.width % c.num_heads == 0 && c.head_size() % 4 == 0, where + ": num_heads",
          "heads don't divide the width into multiples of 4", c.num_heads,
          concat("a divisor of ", c.width, " / 4"));
  require_layers(c.depth, c.width, c.intermediate, where);
  require_matrix(c.width, c.patch_numbers(), where, "hidden_size and patch_size");
  require_matrix(c.out_width, c.width * c.merged_patches(), where,
                 "out_hidden_size, hidden_size and spatial_merge_size");
  if (c.generation == QwenGeneration::k25) {
    require(c.window_size >= c.patch_size * c.spatial_merge_size, where + ": window_size",
            "a window smaller than a token", c.window_size,
            concat("at least ", c.patch_size * c.spatial_merge_size));
    check_layers(c.full_layers, c.depth, where + ": fullatt_block_indexes");
  }
  if (c.generation == QwenGeneration::k3) {
    require_side(c.num_position_embeddings, where + ": num_position_embeddings", 1 << 24);
    const auto side = std::llround(std::sqrt(static_cast<double>(c.num_position_embeddings)));
    require(side * side == c.num_position_embeddings, where + ": num_position_embeddings",
            "positions that make no square", c.num_position_embeddings, "a square number");
    check_layers(c.deepstack_layers, c.depth, where + ": deepstack_visual_indexes");
  }
}

DecoderConfig parse_text(const Json& json, QwenGeneration generation, const std::string& where) {
  const Json type = {{"model_type", generation == QwenGeneration::k3 ? "qwen3" : "qwen2"}};
  DecoderConfig text = DecoderConfig::defaults_for(&type, where);
  text.rope_theta = generation == QwenGeneration::k3 ? 500000 : 1000000;
  if (generation != QwenGeneration::k3) {
    text.vocab_size = 152064;
    text.hidden_size = 8192;
    text.intermediate_size = 29568;
    text.num_hidden_layers = 80;
    text.num_attention_heads = 64;
    text.num_key_value_heads = 8;
    text.rms_norm_eps = 1e-5;
  } else {
    text.max_position_embeddings = 128000;
  }
  read_fields(json, text.fields(), UnknownKeys::kIgnore, where);
  text.complete(json, where);
  require(!text.rope.sections.empty(), where + ": rope_scaling: mrope_section",
          "a decoder without sections for time, row and column", 0, "three numbers");
  return text;
}

}  // namespace

QwenVisionConfig QwenVisionConfig::parse(const Json* json, QwenGeneration generation,
                                         const std::string& where) {
  QwenVisionConfig config{.generation = generation};
  set_defaults(config);
  if (json) {
    std::string activation = activation_of(generation);
    std::int64_t mlp_ratio = 4;
    read_fields(*json, vision_fields(config), UnknownKeys::kIgnore, where);
    read_fields(
        *json,
        {{"hidden_act", &activation, "", {activation_of(generation)}}, {"mlp_ratio", &mlp_ratio}},
        UnknownKeys::kIgnore, where);
    require_side(config.width, where + ": embed_dim");
    require_side(mlp_ratio, where + ": mlp_ratio", 1 << 8);
    if (generation == QwenGeneration::k2) config.intermediate = config.width * mlp_ratio;
  }
  check_vision(config, where);
  return config;
}

QwenVlConfig QwenVlConfig::parse(const Json& json, const std::string& where) {
  QwenVlConfig config;
  std::string model_type;
  Json vision, text;
  read_fields(json,
              {{"model_type", &model_type},
               {"image_token_id", &config.image_token_id},
               {"video_token_id", &config.video_token_id},
               {"tie_word_embeddings", &config.tie_word_embeddings},
               {"vision_config", &vision},
               {"text_config", &text}},
              UnknownKeys::kIgnore, where);
  config.generation = generation_of(model_type);
  const bool is_nested = text.is_object();
  config.vision_config = QwenVisionConfig::parse(vision.is_object() ? &vision : nullptr,
                                                 config.generation, where + ": vision_config");
  config.text_config = parse_text(is_nested ? text : json, config.generation,
                                  is_nested ? where + ": text_config" : where);
  require(config.vision_config.out_width == config.text_config.hidden_size,
          where + ": vision_config", "the encoder's tokens don't fit the decoder",
          config.vision_config.out_width, concat("hidden_size = ", config.text_config.hidden_size));
  for (const auto& [name, id] : {std::pair("image_token_id", config.image_token_id),
                                 std::pair("video_token_id", config.video_token_id)}) {
    require(id >= 0 && id < config.text_config.vocab_size, where + ": " + name,
            "outside the vocabulary", id, concat("0 to ", config.text_config.vocab_size - 1));
  }
  require(config.image_token_id != config.video_token_id, where + ": video_token_id",
          "the same as image_token_id", config.video_token_id, "another id");
  return config;
}

}  // namespace vlm

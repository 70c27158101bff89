#include "vlm/models/internvl/internvl_chat_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/models/decoder/size_checks.h"

namespace vlm {
namespace {

// A decoder by the class that the vendor's code chooses it by.
struct ChatDecoder {
  const char* architecture;
  const char* model_type;
};
constexpr std::array<ChatDecoder, 4> kChatDecoders = {{{"LlamaForCausalLM", "llama"},
                                                       {"Qwen2ForCausalLM", "qwen2"},
                                                       {"Qwen3ForCausalLM", "qwen3"},
                                                       {"InternLM2ForCausalLM", "internlm2"}}};

[[noreturn]] void refuse(const std::string& where, const std::string& got,
                         const std::string& wanted, const std::string& hint = "") {
  throw Error(
      {.what = "unsupported value", .where = where, .got = got, .wanted = wanted, .hint = hint});
}

InternVitConfig parse_chat_vision(const Json& json, const std::string& where) {
  // The class's defaults are those of InternViT-6B.
  InternVitConfig config{.hidden_size = 3200,
                         .intermediate_size = 12800,
                         .num_hidden_layers = 48,
                         .num_attention_heads = 25,
                         .image_size = 224,
                         .has_qk_norms = true,
                         .is_original = true};
  std::string norm_type = "rms_norm", hidden_act;
  bool use_moe = false;
  std::int64_t channels = 3;
  read_fields(json,
              {{"hidden_size", &config.hidden_size},
               {"intermediate_size", &config.intermediate_size},
               {"num_hidden_layers", &config.num_hidden_layers},
               {"num_attention_heads", &config.num_attention_heads},
               {"qkv_bias", &config.attention_bias},
               {"qk_normalization", &config.has_qk_norms},
               {"norm_type", &norm_type, "", {"layer_norm", "rms_norm"}},
               {"hidden_act", &hidden_act, "", {"gelu"}},
               {"layer_norm_eps", &config.layer_norm_eps},
               {"image_size", &config.image_size},
               {"patch_size", &config.patch_size},
               {"num_channels", &channels},
               {"use_moe", &use_moe}},
              UnknownKeys::kIgnore, where);
  config.has_rms_norms = norm_type == "rms_norm";
  require_flag(use_moe, false, where + ": use_moe");
  require(channels == 3, where + ": num_channels", "unsupported value", channels, "3");
  check_vision(config, where);
  return config;
}

const ChatDecoder& find_decoder(const Json& json, const std::string& where) {
  std::vector<std::string> architectures, known;
  std::string type;
  read_fields(json, {{"architectures", &architectures}, {"model_type", &type}},
              UnknownKeys::kIgnore, where);
  for (const ChatDecoder& decoder : kChatDecoders) {
    known.emplace_back(decoder.model_type);
    const bool is_it = architectures.empty() ? type == decoder.model_type
                                             : architectures[0] == decoder.architecture;
    if (is_it) return decoder;
  }
  const std::string hint =
      "language models of other families, and mixtures of experts, aren't "
      "read in this layout";
  if (!architectures.empty()) {
    refuse(where + ": architectures", architectures[0],
           concat("the class of one of these: ", join(known)), hint);
  }
  refuse(where + ": model_type", type.empty() ? "none" : type, join(known), hint);
}

// InternLM2's arithmetic is Llama's; its own class has other defaults.
DecoderConfig parse_internlm2(Json json, const std::string& where) {
  DecoderConfig text{.vocab_size = 103168, .attention_bias = true};
  read_fields(json, {{"bias", &text.attention_bias}}, UnknownKeys::kIgnore, where);
  json.erase("attention_bias");
  json.erase("mlp_bias");
  json.erase("head_dim");
  read_fields(json, text.fields(), UnknownKeys::kIgnore, where);
  text.complete(json, where);
  text.model_type = "internlm2";
  return text;
}

DecoderConfig parse_chat_text(Json json, const std::string& where) {
  const std::string type = find_decoder(json, where).model_type;
  if (const auto moe = json.find("moe_config"); moe != json.end() && !moe->is_null()) {
    refuse(where + ": moe_config", "a mixture of experts", "null");
  }
  if (type == "internlm2") return parse_internlm2(json, where);
  json["model_type"] = type;
  DecoderConfig text = DecoderConfig::defaults_for(&json, where);
  read_fields(json, text.fields(), UnknownKeys::kIgnore, where);
  text.complete(json, where);
  return text;
}

// Variants of older models, and states that only training has.
void check_chat_variants(const Json& json, const std::string& where) {
  std::string ps_version = "v1";
  std::int64_t select_layer = -1, backbone_lora = 0, llm_lora = 0;
  bool pad2square = false;
  read_fields(json,
              {{"ps_version", &ps_version},
               {"select_layer", &select_layer},
               {"use_backbone_lora", &backbone_lora},
               {"use_llm_lora", &llm_lora},
               {"pad2square", &pad2square}},
              UnknownKeys::kIgnore, where);
  if (ps_version != "v2") {
    refuse(where + ": ps_version", concat("'", ps_version, "'"), "'v2'",
           "models before InternVL2 aren't read");
  }
  require(select_layer == -1, where + ": select_layer", "unsupported value", select_layer, "-1");
  require_flag(pad2square, false, where + ": pad2square");
  for (const auto& [key, rank] :
       {std::pair{"use_backbone_lora", backbone_lora}, std::pair{"use_llm_lora", llm_lora}}) {
    if (rank == 0) continue;
    refuse(concat(where, ": ", key), concat(rank), "0",
           "the weights hold adapters: merge them with the vendor's merge_lora.py");
  }
}

InternVlTileConfig parse_chat_tiles(const Json& json, const InternVlConfig& model,
                                    const std::string& where) {
  InternVlTileConfig tiles{.side = model.vision_config.image_size,
                           .scale = {.mean = {0.485, 0.456, 0.406}, .std = {0.229, 0.224, 0.225}},
                           .max_patches = 6,
                           .has_whole = false};
  bool dynamic_image_size = false;
  read_fields(json,
              {{"force_image_size", &tiles.side},
               {"dynamic_image_size", &dynamic_image_size},
               {"use_thumbnail", &tiles.has_whole},
               {"min_dynamic_patch", &tiles.min_patches},
               {"max_dynamic_patch", &tiles.max_patches}},
              UnknownKeys::kIgnore, where);
  require_side(tiles.side, where + ": force_image_size", 1 << 14);
  const std::int64_t cell = model.vision_config.patch_size * model.scale;
  require(tiles.side % cell == 0, where + ": force_image_size",
          "tiles aren't a whole number of tokens wide", tiles.side,
          concat("a multiple of ", cell, " = patch_size / downsample_ratio"));
  check_tile_limits(tiles, where, "min_dynamic_patch", "max_dynamic_patch");
  if (!dynamic_image_size) tiles.min_patches = tiles.max_patches = 1;
  return tiles;
}

}  // namespace

std::int64_t InternVlChatConfig::tile_tokens() const {
  const std::int64_t cells = tiles.side / (model.vision_config.patch_size * model.scale);
  return cells * cells;
}

InternVlChatConfig InternVlChatConfig::parse(const Json& json, const std::string& where) {
  InternVlChatConfig config;
  double downsample_ratio = 0.5;
  Json vision, text;
  std::optional<std::string> conversation;
  read_fields(json,
              {{"downsample_ratio", &downsample_ratio},
               {"template", &conversation},
               {"system_message", &config.system_message},
               {"vision_config", &vision},
               {"llm_config", &text}},
              UnknownKeys::kIgnore, where);
  for (const auto& [key, part] : {std::pair{"vision_config", &vision}, {"llm_config", &text}}) {
    if (part->is_object()) continue;
    const std::string what = part->is_null() ? "key is missing" : "not an object";
    throw Error({.what = what, .where = where, .wanted = key});
  }
  if (!conversation) throw Error({.what = "key is missing", .where = where, .wanted = "template"});
  config.conversation = *conversation;
  check_chat_variants(json, where);
  InternVlConfig& model = config.model;
  model.tie_word_embeddings = false;
  model.vision_config = parse_chat_vision(vision, where + ": vision_config");
  model.text_config = parse_chat_text(text, where + ": llm_config");
  model.scale =
      parse_scale(downsample_ratio, model.vision_config.grid_side(), where + ": downsample_ratio");
  check_connector(model, where);
  config.tiles = parse_chat_tiles(json, model, where);
  return config;
}

}  // namespace vlm

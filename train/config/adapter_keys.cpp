#include "train/config/adapter_keys.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

void refuse_key(bool is_wrong, const char* key, const std::string& what, const std::string& got) {
  if (is_wrong) throw Error({.what = what, .where = key, .got = got});
}

OrderedJson names_to_json(const Names& names) {
  return std::visit([](const auto& inner) { return OrderedJson(inner); }, names);
}

void refuse_beside_full(const TrainConfig& config) {
  refuse_key(!config.modules_to_save.empty(), "modules_to_save",
             "a full training trains every module", join(config.modules_to_save));
  refuse_key(config.bias != "none", "bias", "a full training trains every bias", config.bias);
  refuse_key(config.loraplus_lr_ratio.has_value(), "loraplus_lr_ratio", "LoRA+ needs adapters",
             "method full");
  const std::vector<std::pair<const char*, OrderedJson>> others = {
      {"exclude_modules", names_to_json(config.exclude_modules)},
      {"layers_to_transform", config.layers_to_transform},
      {"layers_pattern", names_to_json(config.layers_pattern)},
      {"rank_pattern", config.rank_pattern},
      {"alpha_pattern", config.alpha_pattern},
      {"trainable_token_indices", config.trainable_token_indices}};
  for (const auto& [key, value] : others) {
    refuse_key(!value.empty(), key, "a full training has no adapters", value.dump());
  }
  refuse_key(config.ensure_weight_tying, "ensure_weight_tying", "a full training has no adapters",
             "true");
}

}  // namespace

void check_adapter_keys(const TrainConfig& config) {
  const std::string initial = config.init_lora_weights.is_string()
                                  ? config.init_lora_weights.get<std::string>()
                                  : config.init_lora_weights.dump();
  if (initial != "true" && initial != "gaussian" && initial != "pissa") {
    throw Error({.what = "value not allowed",
                 .where = "init_lora_weights",
                 .got = initial,
                 .wanted = "true, gaussian or pissa"});
  }
  if (!config.trains_adapter()) return refuse_beside_full(config);
  refuse_key(initial == "pissa" && config.method != "lora", "init_lora_weights",
             "pissa needs method lora", config.method);
  const auto* pattern = std::get_if<std::string>(&config.target_modules);
  if (pattern && !config.target_parts.empty()) {
    throw Error({.what = "parts are for a list of target_modules",
                 .where = "target_parts",
                 .got = join(config.target_parts),
                 .hint = concat("'", *pattern, "' is looked up in the whole model")});
  }
}

LoraConfig TrainConfig::lora() const {
  OrderedJson json;
  json["r"] = r;
  json["lora_alpha"] = lora_alpha;
  json["lora_dropout"] = lora_dropout;
  json["target_modules"] = names_to_json(target_modules);
  json["exclude_modules"] = names_to_json(exclude_modules);
  json["layers_to_transform"] = layers_to_transform;
  json["layers_pattern"] = names_to_json(layers_pattern);
  json["use_rslora"] = use_rslora;
  json["use_dora"] = method == "dora";
  json["init_lora_weights"] = init_lora_weights;
  json["rank_pattern"] = rank_pattern;
  json["alpha_pattern"] = alpha_pattern;
  json["bias"] = bias;
  json["modules_to_save"] = modules_to_save;
  json["trainable_token_indices"] = trainable_token_indices;
  json["ensure_weight_tying"] = ensure_weight_tying;
  LoraConfig lora = LoraConfig::parse(json, "config");
  const auto* names = std::get_if<std::vector<std::string>>(&target_modules);
  if (!names) return lora;
  lora.target_parts = target_parts.empty() ? std::vector<std::string>{"text_model"} : target_parts;
  // The head is a part and a module: naming it is enough.
  if (std::find(names->begin(), names->end(), "lm_head") != names->end()) {
    lora.target_parts.push_back("lm_head");
  }
  return lora;
}

}  // namespace vlm::train

#include "vlm/nn/lora/lora_config.h"

#include <nlohmann/json.hpp>
#include <regex>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

// Options of PEFT that change the arithmetic and are not supported: any value but these means
// refusal.
struct Unsupported {
  const char* key;
  OrderedJson neutral;
};

const std::vector<Unsupported>& unsupported_options() {
  static const std::vector<Unsupported> options = {{"fan_in_fan_out", false},
                                                   {"lora_bias", false},
                                                   {"use_qalora", false},
                                                   {"use_bdlora", nullptr},
                                                   {"layers_to_transform", nullptr},
                                                   {"layer_replication", nullptr},
                                                   {"target_parameters", nullptr},
                                                   {"trainable_token_indices", nullptr},
                                                   {"arrow_config", nullptr},
                                                   {"alora_invocation_tokens", nullptr}};
  return options;
}

bool is_empty(const OrderedJson& value) {
  return value.is_null() || value == false ||
         ((value.is_array() || value.is_object()) && value.empty());
}

void refuse_unsupported(const OrderedJson& json, const std::string& where) {
  for (const auto& [key, neutral] : unsupported_options()) {
    const auto found = json.find(key);
    if (found == json.end() || *found == neutral || is_empty(*found)) continue;
    throw Error({.what = "adapter option is not supported",
                 .where = where,
                 .got = concat(key, " = ", found->dump())});
  }
}

PatternList parse_patterns(const OrderedJson& json, const char* key, const std::string& where) {
  PatternList patterns;
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return patterns;
  for (const auto& [pattern, value] : found->items()) {
    if (!value.is_number() || value.get<double>() <= 0) {
      throw Error({.what = "not a positive number",
                   .where = concat(where, ": ", key, ": ", pattern),
                   .got = value.dump()});
    }
    patterns.emplace_back(pattern, value.get<double>());
  }
  return patterns;
}

OrderedJson to_object(const PatternList& patterns, bool integers) {
  OrderedJson object = OrderedJson::object();
  for (const auto& [pattern, value] : patterns) {
    if (integers) {
      object[pattern] = static_cast<std::int64_t>(value);
    } else {
      object[pattern] = value;
    }
  }
  return object;
}

// true, false or a name, as text. Kinds that change the base in ways that can't be worked out again
// here are refused.
std::string parse_initial(const OrderedJson& json, const std::string& where) {
  const auto found = json.find("init_lora_weights");
  if (found == json.end() || found->is_null()) return "true";
  const std::string kind = found->is_string() ? found->get<std::string>() : found->dump();
  for (const char* known : {"true", "false", "gaussian", "pissa", "eva", "orthogonal"}) {
    if (kind == known) return kind;
  }
  throw Error({.what = "adapter option is not supported",
               .where = where,
               .got = concat("init_lora_weights = ", found->dump())});
}

void check_ranges(const LoraConfig& config, const std::string& where) {
  if (config.r < 1 || config.r > 1 << 16) {
    throw Error({.what = "rank out of range",
                 .where = where + ": r",
                 .got = concat(config.r),
                 .wanted = "1 to 65536"});
  }
  if (config.lora_dropout < 0 || config.lora_dropout >= 1) {
    throw Error({.what = "dropout out of range",
                 .where = where + ": lora_dropout",
                 .got = concat(config.lora_dropout),
                 .wanted = "0 to below 1"});
  }
}

// 16.0 → 16: PEFT's own files hold integers where they can.
OrderedJson tidy_number(double value) {
  if (value == std::floor(value)) return static_cast<std::int64_t>(value);
  return value;
}

}  // namespace

LoraConfig LoraConfig::parse(const OrderedJson& json, const std::string& where) {
  if (!json.is_object()) {
    throw Error(
        {.what = "wrong type", .where = where, .got = json.type_name(), .wanted = "object"});
  }
  const std::string type = json.value("peft_type", "LORA");
  if (type != "LORA") {
    throw Error(
        {.what = "adapter type is not supported", .where = where, .got = type, .wanted = "LORA"});
  }
  refuse_unsupported(json, where);
  LoraConfig config;
  Names excluded = std::vector<std::string>{};
  const Fields fields = {{"r", &config.r},
                         {"lora_alpha", &config.lora_alpha},
                         {"lora_dropout", &config.lora_dropout},
                         {"target_modules", &config.target_modules},
                         {"exclude_modules", &excluded},
                         {"use_rslora", &config.use_rslora},
                         {"use_dora", &config.use_dora},
                         {"bias", &config.bias, "", {"none", "all", "lora_only"}},
                         {"modules_to_save", &config.modules_to_save}};
  read_fields(Json::parse(json.dump()), fields, UnknownKeys::kIgnore, where);
  if (json.contains("exclude_modules") && !is_empty(json["exclude_modules"])) {
    config.exclude_modules = excluded;
  }
  config.rank_pattern = parse_patterns(json, "rank_pattern", where);
  config.alpha_pattern = parse_patterns(json, "alpha_pattern", where);
  config.init_lora_weights = parse_initial(json, where);
  check_ranges(config, where);
  return config;
}

OrderedJson LoraConfig::to_json(const std::string& base_model_name_or_path) const {
  const auto names = [](const Names& value) {
    return std::visit([](const auto& inner) { return OrderedJson(inner); }, value);
  };
  OrderedJson json;
  json["peft_type"] = "LORA";
  json["base_model_name_or_path"] = base_model_name_or_path;
  json["r"] = r;
  json["lora_alpha"] = tidy_number(lora_alpha);
  json["lora_dropout"] = lora_dropout;
  json["target_modules"] = names(target_modules);
  json["exclude_modules"] = exclude_modules ? names(*exclude_modules) : OrderedJson(nullptr);
  json["use_rslora"] = use_rslora;
  json["rank_pattern"] = to_object(rank_pattern, true);
  json["alpha_pattern"] = to_object(alpha_pattern, false);
  json["bias"] = bias;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  if (init_lora_weights == "true" || init_lora_weights == "false") {
    json["init_lora_weights"] = init_lora_weights == "true";
  } else {
    json["init_lora_weights"] = init_lora_weights;
  }
  json["modules_to_save"] =
      modules_to_save.empty() ? OrderedJson(nullptr) : OrderedJson(modules_to_save);
  json["task_type"] = nullptr;
  json["use_dora"] = use_dora;
  return json;
}

}  // namespace vlm

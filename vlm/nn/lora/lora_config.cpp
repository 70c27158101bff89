#include "vlm/nn/lora/lora_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

constexpr double kMostRank = 1 << 16;

// Options of PEFT that change the arithmetic, or the base, and are not supported: any value but
// empty ones means refusal.
const std::vector<const char*>& unsupported_options() {
  static const std::vector<const char*> options = {
      "fan_in_fan_out",    "lora_bias",         "use_qalora",     "use_bdlora",
      "arrow_config",      "layer_replication", "kasa_config",    "alora_invocation_tokens",
      "target_parameters", "monteclora_config", "megatron_config"};
  return options;
}

bool is_empty(const OrderedJson& value) {
  return value.is_null() || value == false || value == "" ||
         ((value.is_array() || value.is_object()) && value.empty());
}

// The value of a key that says something; null where there is none.
const OrderedJson* find_value(const OrderedJson& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || is_empty(*found) ? nullptr : &*found;
}

void refuse_unsupported(const OrderedJson& json, const std::string& where) {
  for (const char* key : unsupported_options()) {
    const OrderedJson* value = find_value(json, key);
    if (!value) continue;
    throw Error({.what = "adapter option is not supported",
                 .where = where,
                 .got = concat(key, " = ", value->dump())});
  }
}

[[noreturn]] void refuse(const char* what, const std::string& where, const OrderedJson& got,
                         const std::string& wanted) {
  throw Error({.what = what, .where = where, .got = got.dump(), .wanted = wanted});
}

bool is_rank(double value) {
  return value >= 1 && value <= kMostRank && value == std::floor(value);
}

bool is_alpha(double value) {
  return value > 0 && std::isfinite(value);
}

PatternList parse_patterns(const OrderedJson& json, const char* key, bool are_ranks,
                           const std::string& where) {
  PatternList patterns;
  const OrderedJson* found = find_value(json, key);
  if (!found) return patterns;
  const std::string place = concat(where, ": ", key);
  if (!found->is_object()) refuse("wrong type", place, *found, "an object of patterns and values");
  for (const auto& [pattern, value] : found->items()) {
    const bool is_number = value.is_number();
    const double number = is_number ? value.template get<double>() : 0;
    const std::string at = concat(place, ": ", pattern);
    if (are_ranks && !is_rank(number)) refuse("not a rank", at, value, "an integer, 1 to 65536");
    if (!are_ranks && !is_alpha(number)) refuse("not a scale", at, value, "a number above 0");
    patterns.emplace_back(pattern, number);
  }
  return patterns;
}

std::vector<std::int64_t> parse_indices(const OrderedJson& value, const std::string& where) {
  std::vector<std::int64_t> indices;
  const OrderedJson list = value.is_array() ? value : OrderedJson::array({value});
  for (const OrderedJson& item : list) {
    const bool is_index = item.is_number_integer() && item >= 0 && item < (std::int64_t{1} << 40);
    if (!is_index) refuse("not an index", where, item, "integers from 0");
    indices.push_back(item.get<std::int64_t>());
  }
  if (std::set<std::int64_t>(indices.begin(), indices.end()).size() != indices.size()) {
    refuse("an index is given twice", where, value, "");
  }
  return indices;
}

std::vector<TrainedTokens> parse_tokens(const OrderedJson& json, const std::string& where) {
  const char* key = "trainable_token_indices";
  const std::string place = concat(where, ": ", key);
  const OrderedJson* found = find_value(json, key);
  if (!found) return {};
  // A list is for the input embeddings.
  if (found->is_array()) return {{"embed_tokens", parse_indices(*found, place)}};
  if (!found->is_object()) refuse("wrong type", place, *found, "token ids, or {layer: token ids}");
  std::vector<TrainedTokens> tokens;
  for (const auto& [layer, ids] : found->items()) {
    const std::string at = concat(place, ": ", layer);
    if (!ids.is_array() || ids.empty()) refuse("wrong type", at, ids, "a list of token ids");
    tokens.push_back({layer, parse_indices(ids, at)});
  }
  return tokens;
}

std::vector<std::string> parse_layers_pattern(const OrderedJson& json, const std::string& where) {
  const OrderedJson* found = find_value(json, "layers_pattern");
  if (!found) return {};
  std::vector<std::string> patterns;
  const OrderedJson list = found->is_array() ? *found : OrderedJson::array({*found});
  for (const OrderedJson& item : list) {
    if (!item.is_string()) refuse("wrong type", where + ": layers_pattern", item, "a string");
    patterns.push_back(item.get<std::string>());
  }
  return patterns;
}

// The keys that narrow a list down to some layers.
void parse_layers(const OrderedJson& json, const std::string& where, LoraConfig& config) {
  const OrderedJson* layers = find_value(json, "layers_to_transform");
  if (layers) {
    config.layers_to_transform = parse_indices(*layers, where + ": layers_to_transform");
  }
  config.layers_pattern = parse_layers_pattern(json, where);
  const bool is_list = std::holds_alternative<std::vector<std::string>>(config.target_modules);
  for (const char* key : {"layers_to_transform", "layers_pattern"}) {
    const OrderedJson* value = find_value(json, key);
    if (value && !is_list) {
      refuse("needs a list in target_modules", concat(where, ": ", key), *value, "");
    }
  }
  if (!config.layers_pattern.empty() && !layers) {
    refuse("needs layers_to_transform", where + ": layers_pattern", json["layers_pattern"], "");
  }
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
  if (!is_rank(static_cast<double>(config.r))) {
    refuse("rank out of range", where + ": r", config.r, "1 to 65536");
  }
  if (!is_alpha(config.lora_alpha)) {
    refuse("scale out of range", where + ": lora_alpha", config.lora_alpha, "a number above 0");
  }
  if (!(config.lora_dropout >= 0 && config.lora_dropout < 1)) {
    refuse("dropout out of range", where + ": lora_dropout", config.lora_dropout, "0 to below 1");
  }
}

// 16.0 → 16: PEFT's own files hold integers where they can.
OrderedJson tidy_number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

OrderedJson to_object(const PatternList& patterns) {
  OrderedJson object = OrderedJson::object();
  for (const auto& [pattern, value] : patterns) object[pattern] = tidy_number(value);
  return object;
}

std::string escaped(const std::string& name) {
  std::string text;
  for (const char c : name) {
    if (std::string_view(".^$*+?()[]{}|\\-").find(c) != std::string_view::npos) text += '\\';
    text += c;
  }
  return text;
}

std::string names_regex(const std::vector<std::string>& names) {
  std::vector<std::string> parts;
  for (const std::string& name : names) parts.push_back(escaped(name));
  return concat("(?:.*\\.)?(?:", join(parts, "|"), ")");
}

OrderedJson to_json(const Names& names) {
  return std::visit([](const auto& inner) { return OrderedJson(inner); }, names);
}

// exclude_modules, with what lies outside the parts, as one regular expression where there are
// parts.
OrderedJson write_excluded(const LoraConfig& config) {
  if (config.target_parts.empty()) {
    return config.exclude_modules ? to_json(*config.exclude_modules) : OrderedJson(nullptr);
  }
  const std::string outside = concat("(?!", names_regex(config.target_parts), "(?:\\.|$)).*");
  if (!config.exclude_modules) return outside;
  const auto* names = std::get_if<std::vector<std::string>>(&*config.exclude_modules);
  const std::string own =
      names ? names_regex(*names) : std::get<std::string>(*config.exclude_modules);
  return own + "|" + outside;
}

OrderedJson write_tokens(const std::vector<TrainedTokens>& tokens) {
  OrderedJson object = OrderedJson::object();
  for (const TrainedTokens& one : tokens) object[one.layer] = one.ids;
  return object;
}

template <typename T>
OrderedJson list_or_null(const std::vector<T>& list) {
  return list.empty() ? OrderedJson(nullptr) : OrderedJson(list);
}

}  // namespace

LoraConfig LoraConfig::parse(const OrderedJson& json, const std::string& where) {
  if (!json.is_object()) {
    throw Error(
        {.what = "wrong type", .where = where, .got = json.type_name(), .wanted = "object"});
  }
  const OrderedJson type = json.value("peft_type", OrderedJson("LORA"));
  if (type != "LORA") {
    throw Error({.what = "adapter type is not supported",
                 .where = where,
                 .got = type.is_string() ? type.get<std::string>() : type.dump(),
                 .wanted = "LORA"});
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
                         {"modules_to_save", &config.modules_to_save},
                         {"ensure_weight_tying", &config.ensure_weight_tying}};
  read_fields(json, fields, UnknownKeys::kIgnore, where);
  if (find_value(json, "exclude_modules")) config.exclude_modules = excluded;
  parse_layers(json, where, config);
  config.rank_pattern = parse_patterns(json, "rank_pattern", /*are_ranks=*/true, where);
  config.alpha_pattern = parse_patterns(json, "alpha_pattern", /*are_ranks=*/false, where);
  config.trainable_token_indices = parse_tokens(json, where);
  config.init_lora_weights = parse_initial(json, where);
  check_ranges(config, where);
  return config;
}

OrderedJson LoraConfig::to_json(const std::string& base_model_name_or_path) const {
  OrderedJson json;
  json["peft_type"] = "LORA";
  json["base_model_name_or_path"] = base_model_name_or_path;
  json["r"] = r;
  json["lora_alpha"] = tidy_number(lora_alpha);
  json["lora_dropout"] = lora_dropout;
  json["target_modules"] = vlm::to_json(target_modules);
  json["exclude_modules"] = write_excluded(*this);
  json["layers_to_transform"] = list_or_null(layers_to_transform);
  json["layers_pattern"] = list_or_null(layers_pattern);
  json["use_rslora"] = use_rslora;
  json["rank_pattern"] = to_object(rank_pattern);
  json["alpha_pattern"] = to_object(alpha_pattern);
  json["bias"] = bias;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  if (init_lora_weights == "true" || init_lora_weights == "false") {
    json["init_lora_weights"] = init_lora_weights == "true";
  } else {
    json["init_lora_weights"] = init_lora_weights;
  }
  json["modules_to_save"] = list_or_null(modules_to_save);
  if (!trainable_token_indices.empty()) {
    json["trainable_token_indices"] = write_tokens(trainable_token_indices);
  }
  if (ensure_weight_tying) json["ensure_weight_tying"] = true;
  json["task_type"] = nullptr;
  json["use_dora"] = use_dora;
  return json;
}

}  // namespace vlm

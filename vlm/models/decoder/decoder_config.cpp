#include "vlm/models/decoder/decoder_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/decoder/size_checks.h"

namespace vlm {
namespace {

const Json* find_object(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_object() ? &*found : nullptr;
}

void check_sizes(const DecoderConfig& config, const std::string& where) {
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
  require_layers(config.num_hidden_layers, config.hidden_size, config.intermediate_size, where);
  // At most 2²⁰ heads of 2²⁰ channels: their product can't overflow.
  require_matrix(config.num_attention_heads * config.head_size(), config.hidden_size, where,
                 "num_attention_heads, head_dim and hidden_size");
}

// Attention windows are not supported, but most files that name one never use it.
void check_window(const DecoderConfig& config, const Json& json, const std::string& where) {
  bool use_sliding_window = config.model_type == "phi3";  // which has no such key
  const bool has_default = config.model_type == "qwen2" || config.model_type == "qwen3";
  std::optional<std::int64_t> sliding_window;
  if (has_default) sliding_window = 4096;
  std::int64_t max_window_layers = has_default ? 28 : 0;
  read_fields(json,
              {{"use_sliding_window", &use_sliding_window},
               {"sliding_window", &sliding_window},
               {"max_window_layers", &max_window_layers}},
              UnknownKeys::kIgnore, where);
  const bool is_used = use_sliding_window && sliding_window &&
                       max_window_layers < config.num_hidden_layers && config.model_type != "llama";
  if (!is_used || *sliding_window >= config.max_position_embeddings) return;
  throw Error({.what = "attention windows are not supported",
               .where = where + ": sliding_window",
               .got = concat(*sliding_window),
               .wanted = concat("at least max_position_embeddings = ",
                                config.max_position_embeddings, ", where it has no effect")});
}

// The object with the rotation's keys, and what it is called; null: there is none.
std::pair<const Json*, std::string> find_rope(const Json& json, const std::string& where) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (const Json* rope = find_object(json, key)) return {rope, where + ": " + key};
  }
  return {nullptr, where};
}

RotarySettings::Kind kind_of(const std::string& type) {
  if (type == "linear") return RotarySettings::Kind::kLinear;
  if (type == "llama3") return RotarySettings::Kind::kLlama3;
  if (type == "longrope" || type == "su") return RotarySettings::Kind::kLongRope;
  // "dynamic" changes nothing up to max_position_embeddings, where prompts end. Of "mrope" only the
  // positions differ.
  return RotarySettings::Kind::kDefault;
}

void require_key(const Json& rope, const char* key, const std::string& where) {
  if (const auto found = rope.find(key); found != rope.end() && !found->is_null()) return;
  throw Error({.what = "key is missing", .where = where, .wanted = key});
}

void require_positive(double value, const std::string& where) {
  if (value > 0) return;
  throw Error({.what = "value out of range",
               .where = where,
               .got = concat(value),
               .wanted = "a positive number"});
}

void require_factors(const std::vector<double>& factors, const RotarySettings& settings,
                     const std::string& where) {
  require(std::ssize(factors) == settings.dims / 2, where, "wrong number of factors",
          std::ssize(factors),
          concat(settings.dims / 2, ", one for two rotated numbers of a head"));
  for (const double factor : factors) require_positive(factor, where);
}

void complete_longrope(RotarySettings& settings, const Json& rope, std::int64_t max_positions,
                       const std::string& where) {
  require_factors(settings.short_factor, settings, where + ": short_factor");
  require_factors(settings.long_factor, settings, where + ": long_factor");
  require_side(settings.original_positions, where + ": original_max_position_embeddings",
               1LL << 32);
  const auto original = static_cast<double>(settings.original_positions);
  if (rope.find("factor") == rope.end() || rope["factor"].is_null()) {
    settings.factor = static_cast<double>(max_positions) / original;
  }
  if (rope.find("attention_factor") == rope.end() || rope["attention_factor"].is_null()) {
    settings.attention_factor =
        settings.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(settings.factor) / std::log(original));
  }
}

void complete_sections(const RotarySettings& settings, const std::string& where) {
  if (settings.sections.empty()) return;
  std::int64_t sum = 0;
  for (const std::int64_t section : settings.sections) sum += std::max<std::int64_t>(section, 0);
  require(settings.sections.size() == 3 && sum == settings.dims / 2, where + ": mrope_section",
          "sections don't fit the head", sum,
          concat("three numbers that add up to ", settings.dims / 2));
}

// The rotation's keys, from the root and from the object that has them; returns its type.
std::string read_rotation(const Json& json, const Json* found, const std::string& place,
                          const std::string& where, DecoderConfig& config, double& rotated_part) {
  RotarySettings& rope = config.rope;
  const bool is_phi = config.model_type == "phi3";
  rope = {.original_positions = is_phi ? 4096 : config.max_position_embeddings};
  read_fields(json,
              {{"partial_rotary_factor", &rotated_part},
               {"original_max_position_embeddings", &rope.original_positions}},
              UnknownKeys::kIgnore, where);
  const std::int64_t outer_positions = rope.original_positions;
  const bool is_outer = is_phi || json.contains("original_max_position_embeddings");
  std::string type = "default";
  if (!found) return type;
  const std::vector<std::string> types = {"default",  "linear", "dynamic", "llama3",
                                          "longrope", "su",     "mrope"};
  read_fields(*found,
              {{"type", &type, "", types},  // rope_type's older name
               {"rope_type", &type, "", types},
               {"rope_theta", &config.rope_theta},
               {"partial_rotary_factor", &rotated_part},
               {"factor", &rope.factor},
               {"low_freq_factor", &rope.low_freq_factor},
               {"high_freq_factor", &rope.high_freq_factor},
               {"original_max_position_embeddings", &rope.original_positions},
               {"short_factor", &rope.short_factor},
               {"long_factor", &rope.long_factor},
               {"attention_factor", &rope.attention_factor},
               {"mrope_section", &rope.sections},
               {"mrope_interleaved", &rope.are_sections_interleaved}},
              UnknownKeys::kIgnore, place);
  if (is_outer) rope.original_positions = outer_positions;  // as in transformers
  return type;
}

// What the kind of rotation needs must be there, and what it has no use for has no effect.
void complete_kind(RotarySettings& rope, const Json* found, std::int64_t max_positions,
                   const std::string& place) {
  using Kind = RotarySettings::Kind;
  if (rope.kind == Kind::kLongRope) return complete_longrope(rope, *found, max_positions, place);
  rope.short_factor.clear();
  rope.long_factor.clear();
  rope.attention_factor = 1;
  if (rope.kind == Kind::kDefault) return;
  require_key(*found, "factor", place);
  require_positive(rope.factor, place + ": factor");
  if (rope.kind == Kind::kLinear) return;
  require_key(*found, "low_freq_factor", place);
  require_key(*found, "high_freq_factor", place);
  require_positive(rope.low_freq_factor, place + ": low_freq_factor");
  require_positive(rope.high_freq_factor - rope.low_freq_factor,
                   place + ": high_freq_factor - low_freq_factor");
  require_side(rope.original_positions, place + ": original_max_position_embeddings", 1LL << 32);
}

}  // namespace

const std::vector<std::string>& decoder_types() {
  static const std::vector<std::string> types = {"llama", "qwen2", "qwen3", "phi3"};
  return types;
}

DecoderConfig DecoderConfig::defaults_for(const Json* json, const std::string& where) {
  DecoderConfig config;
  if (json) {
    read_fields(*json, {{"model_type", &config.model_type, "", decoder_types()}},
                UnknownKeys::kIgnore, where);
  }
  if (config.model_type == "qwen2" || config.model_type == "qwen3") {
    config.vocab_size = 151936;
    config.intermediate_size = 22016;
    config.num_key_value_heads = 32;
    config.max_position_embeddings = 32768;
    if (config.model_type == "qwen3") config.head_dim = 128;
  }
  if (config.model_type == "phi3") {
    config.vocab_size = 32064;
    config.hidden_size = 3072;
    config.intermediate_size = 8192;
    config.max_position_embeddings = 4096;
    config.rms_norm_eps = 1e-5;
  }
  return config;
}

Fields DecoderConfig::fields() {
  return {{"vocab_size", &vocab_size},
          {"hidden_size", &hidden_size},
          {"intermediate_size", &intermediate_size},
          {"num_hidden_layers", &num_hidden_layers},
          {"num_attention_heads", &num_attention_heads},
          {"num_key_value_heads", &num_key_value_heads},
          {"head_dim", &head_dim},
          {"max_position_embeddings", &max_position_embeddings},
          {"hidden_act", &hidden_act, "", {"silu"}},
          {"rms_norm_eps", &rms_norm_eps},
          {"rope_theta", &rope_theta},
          {"initializer_range", &initializer_range},
          {"attention_bias", &attention_bias},
          {"mlp_bias", &mlp_bias}};
}

bool DecoderConfig::has_input_biases() const {
  if (model_type == "qwen2") return true;
  return model_type != "phi3" && attention_bias;
}

bool DecoderConfig::has_output_bias() const {
  const bool has_key = model_type == "llama" || model_type == "qwen3" || is_internlm2();
  return has_key && attention_bias;
}

void DecoderConfig::complete(const Json& json, const std::string& where) {
  check_sizes(*this, where);
  check_window(*this, json, where);
  const auto [found, place] = find_rope(json, where);
  double rotated_part = 1;
  const std::string type = read_rotation(json, found, place, where, *this, rotated_part);
  require_positive(rope_theta, where + ": rope_theta");
  rope.kind = kind_of(type);
  rope.theta = rope_theta;
  rope.dims = static_cast<std::int64_t>(static_cast<double>(head_size()) * rotated_part);
  require(rope.dims >= 2 && rope.dims % 2 == 0 && rope.dims <= head_size(),
          where + ": partial_rotary_factor", "the part of a head to rotate", rope.dims,
          concat("an even number, 2 to head_dim = ", head_size()));
  complete_sections(rope, place);
  complete_kind(rope, found, max_position_embeddings, place);
}

}  // namespace vlm

// PEFT's LoraConfig: which modules get an adapter, and its rank, scale and kind.
//
//   adapter_config.json ⇄ LoraConfig ─► lora.h
//
// Reference: peft 0.21.2. What PEFT can do and this can't is refused with an Error that names it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vlm/core/config/fields.h"

namespace vlm {

// Patterns in the order of the file: the first that matches a module's name wins.
using PatternList = std::vector<std::pair<std::string, double>>;

// Rows of an embedding, or of the output head, that are trained and stored by themselves.
struct TrainedTokens {
  std::string layer;              // a module by the end of its name
  std::vector<std::int64_t> ids;  // distinct, not negative
};

// The part of PEFT's LoraConfig that has an effect here, under PEFT's names.
struct LoraConfig {
  std::int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  Names target_modules = std::vector<std::string>{};
  std::optional<Names> exclude_modules = {};
  std::vector<std::int64_t> layers_to_transform = {};  // empty: all
  std::vector<std::string> layers_pattern = {};
  bool use_rslora = false;
  bool use_dora = false;
  std::string init_lora_weights = "true";  // true, false, gaussian, pissa
  PatternList rank_pattern = {};           // integers
  PatternList alpha_pattern = {};
  std::string bias = "none";  // none, all, lora_only
  std::vector<std::string> modules_to_save = {};
  std::vector<TrainedTokens> trainable_token_indices = {};
  // Whether a weight shared by embeddings and output head stays shared when it is trained.
  bool ensure_weight_tying = false;

  // Not a key of PEFT: parts of the model (vision_model, …) in which target_modules applies; empty:
  // all. Saved as an entry of exclude_modules.
  std::vector<std::string> target_parts = {};

  // Names of adapter_config.json; throws Error for a method or an option that is not supported.
  static LoraConfig parse(const OrderedJson& json, const std::string& where);
  OrderedJson to_json(const std::string& base_model_name_or_path) const;

  // True for a module that modules_to_save names, or that lies in one.
  bool saves_module(const std::string& name) const;
};

}  // namespace vlm

// Which modules an adapter's config selects ("hits"), as PEFT decides it.
//
//   LoraConfig ─► TargetRules ─► hits(name, kind), rank(name), alpha(name)
//
// A list entry hits a module whose name equals it or ends with "." + entry; a string is a regular
// expression for the whole name (re.fullmatch); "all-linear" is every Linear but the output head.
// exclude_modules, modules_to_save and layers_to_transform remove hits. Of rank_pattern and
// alpha_pattern the first entry that matches the end of the name is used. Reference: peft 0.21.2,
// check_target_module_exists and get_pattern_key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vlm/core/regex.h"
#include "vlm/nn/lora/lora_config.h"

namespace torch::nn {
class Module;
}

namespace vlm {

enum class LayerKind { kLinear, kEmbedding, kOther };  // kOther can't be adapted

struct NamedLayer {
  std::string name;
  LayerKind kind;
};

// A list of names, or one regular expression.
class NameMatcher {
 public:
  NameMatcher(const Names& names, const std::string& where);
  bool matches(const std::string& name) const;

  static bool entry_matches(const std::string& entry, const std::string& name);

 private:
  std::vector<std::string> entries_;
  std::optional<Regex> regex_;
};

class TargetRules {
 public:
  // Throws Error for what is no regular expression.
  explicit TargetRules(const LoraConfig& config);

  // Throws Error for a hit that can't be adapted.
  bool hits(const NamedLayer& layer) const;
  std::int64_t rank(const std::string& name) const;
  double alpha(const std::string& name) const;

  // For a new adapter: throws Error, with similar names, for an entry, a layer or a pattern that
  // has no effect on `layers`, the layers of the model.
  void check_all_hit(const std::vector<NamedLayer>& layers) const;

 private:
  using Patterns = std::vector<std::pair<Regex, double>>;

  bool is_excluded(const std::string& name) const;
  bool is_in_layers(const std::string& name) const;
  std::optional<std::int64_t> layer_of(const std::string& name) const;
  void check_targets(const std::vector<NamedLayer>& layers,
                     const std::vector<std::string>& hit) const;
  void check_excluded(const std::vector<NamedLayer>& layers) const;
  void check_layers(const std::vector<std::string>& hit) const;

  LoraConfig config_;
  bool is_all_linear_ = false;
  std::optional<NameMatcher> targets_, excluded_;
  std::vector<Regex> layer_patterns_;
  Patterns ranks_, alphas_;
};

// Every module of the tree in its order, without the children of layers (adapters, quantized
// weights).
std::vector<NamedLayer> list_layers(const torch::nn::Module& model);

// Whether a module of this name is the output head: "lm_head", in some models inside
// language_model, where InternLM2 calls it "output".
bool is_output_head(const std::string& name);

// Throws Error for an entry of modules_to_save that names no module.
void check_modules_to_save(const torch::nn::Module& model, const LoraConfig& config);

// Throws the Error "no module matches", with similar names from `layers`.
[[noreturn]] void throw_no_match(const std::string& entry, const std::string& where,
                                 const std::vector<NamedLayer>& layers);

}  // namespace vlm

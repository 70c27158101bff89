#include "vlm/nn/lora/target_rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

constexpr const char* kLeftOut =
    "target_parts, exclude_modules, layers_to_transform and modules_to_save leave modules out";

// PEFT takes it in any case.
bool is_all_linear(const Names& names) {
  const auto* pattern = std::get_if<std::string>(&names);
  constexpr std::string_view kName = "all-linear";
  return pattern && std::equal(pattern->begin(), pattern->end(), kName.begin(), kName.end(),
                               [](char c, char wanted) { return (c | 0x20) == wanted; });
}

std::vector<std::pair<Regex, double>> compile_patterns(const PatternList& patterns,
                                                       const std::string& key) {
  std::vector<std::pair<Regex, double>> compiled;
  for (const auto& [pattern, value] : patterns) {
    Regex::from_python(pattern, key);  // by itself, so that it can't close the group around it
    compiled.emplace_back(Regex::from_python(concat("(.*\\.)?(", pattern, ")$"), key), value);
  }
  return compiled;
}

double find_pattern(const std::vector<std::pair<Regex, double>>& patterns, const std::string& name,
                    double otherwise) {
  for (const auto& [regex, value] : patterns) {
    if (regex.matches_begin(name)) return value;
  }
  return otherwise;
}

bool is_in_parts(const std::string& name, const std::vector<std::string>& parts) {
  const std::string path = "." + name + ".";
  return parts.empty() || std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
           return path.find("." + part + ".") != std::string::npos;
         });
}

void check_patterns(const PatternList& patterns, const std::vector<std::pair<Regex, double>>& found,
                    const std::string& key, const std::vector<std::string>& hit) {
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    const bool is_used = std::any_of(hit.begin(), hit.end(), [&](const std::string& name) {
      return found[i].first.matches_begin(name);
    });
    if (is_used) continue;
    throw Error({.what = "no adapted module matches",
                 .where = key,
                 .got = concat("'", patterns[i].first, "'"),
                 .hint = "a pattern is for the end of a module's name"});
  }
}

}  // namespace

NameMatcher::NameMatcher(const Names& names, const std::string& where) {
  if (const auto* pattern = std::get_if<std::string>(&names)) {
    regex_ = Regex::from_python(*pattern, where);
  } else {
    entries_ = std::get<std::vector<std::string>>(names);
  }
}

bool NameMatcher::entry_matches(const std::string& entry, const std::string& name) {
  return name == entry || name.ends_with("." + entry);
}

bool NameMatcher::matches(const std::string& name) const {
  if (regex_) return regex_->matches_whole(name);
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const std::string& entry) { return entry_matches(entry, name); });
}

TargetRules::TargetRules(const LoraConfig& config) : config_(config) {
  is_all_linear_ = is_all_linear(config.target_modules);
  if (!is_all_linear_) targets_.emplace(config.target_modules, "target_modules");
  if (config.exclude_modules) excluded_.emplace(*config.exclude_modules, "exclude_modules");
  for (const std::string& one : config.layers_pattern) {
    layer_patterns_.push_back(
        Regex::from_python(concat("(?:^|.*?\\.)", one, "\\.(?P<idx>\\d+)\\."), "layers_pattern"));
  }
  if (layer_patterns_.empty()) {
    layer_patterns_.push_back(Regex::from_python(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", "layers"));
  }
  ranks_ = compile_patterns(config.rank_pattern, "rank_pattern");
  alphas_ = compile_patterns(config.alpha_pattern, "alpha_pattern");
}

bool TargetRules::is_excluded(const std::string& name) const {
  return config_.saves_module(name) || (excluded_ && excluded_->matches(name)) ||
         !is_in_parts(name, config_.target_parts);
}

std::optional<std::int64_t> TargetRules::layer_of(const std::string& name) const {
  for (const Regex& pattern : layer_patterns_) {
    const auto number = pattern.group(name, "idx");
    if (!number) continue;
    return number->size() < 10 ? std::stoll(*number) : -1;
  }
  return std::nullopt;
}

bool TargetRules::is_in_layers(const std::string& name) const {
  const auto& layers = config_.layers_to_transform;
  if (layers.empty()) return true;
  // A whole name stands for itself.
  const auto* entries = std::get_if<std::vector<std::string>>(&config_.target_modules);
  if (entries && std::find(entries->begin(), entries->end(), name) != entries->end()) return true;
  const auto layer = layer_of(name);
  return layer && std::find(layers.begin(), layers.end(), *layer) != layers.end();
}

bool TargetRules::hits(const NamedLayer& layer) const {
  const auto& [name, kind] = layer;
  if (is_excluded(name)) return false;
  if (is_all_linear_) return kind == LayerKind::kLinear && !is_output_head(name);
  if (!targets_->matches(name) || !is_in_layers(name)) return false;
  if (kind != LayerKind::kOther) return true;
  throw Error({.what = "a module can't be adapted",
               .where = "target_modules",
               .got = name,
               .wanted = "linear layers and embeddings"});
}

std::int64_t TargetRules::rank(const std::string& name) const {
  return static_cast<std::int64_t>(find_pattern(ranks_, name, static_cast<double>(config_.r)));
}

double TargetRules::alpha(const std::string& name) const {
  return find_pattern(alphas_, name, config_.lora_alpha);
}

void TargetRules::check_all_hit(const std::vector<NamedLayer>& layers) const {
  std::vector<std::string> hit;
  for (const NamedLayer& layer : layers) {
    if (hits(layer)) hit.push_back(layer.name);
  }
  check_targets(layers, hit);
  check_excluded(layers);
  check_layers(hit);
  check_patterns(config_.rank_pattern, ranks_, "rank_pattern", hit);
  check_patterns(config_.alpha_pattern, alphas_, "alpha_pattern", hit);
}

void TargetRules::check_targets(const std::vector<NamedLayer>& layers,
                                const std::vector<std::string>& hit) const {
  const auto* entries = std::get_if<std::vector<std::string>>(&config_.target_modules);
  if (!entries) {
    if (!hit.empty()) return;
    throw Error({.what = "no module matches",
                 .where = "target_modules",
                 .got = concat("'", std::get<std::string>(config_.target_modules), "'"),
                 .hint = "it is a regular expression for a module's whole name"});
  }
  for (const std::string& entry : *entries) {
    const auto matches = [&](const std::string& name) {
      return NameMatcher::entry_matches(entry, name);
    };
    if (std::any_of(hit.begin(), hit.end(), matches)) continue;
    const auto left_out = std::find_if(layers.begin(), layers.end(),
                                       [&](const auto& layer) { return matches(layer.name); });
    if (left_out == layers.end()) throw_no_match(entry, "target_modules", layers);
    throw Error({.what = "an entry hits only modules that are left out",
                 .where = "target_modules",
                 .got = concat("'", entry, "', like ", left_out->name),
                 .hint = kLeftOut});
  }
}

void TargetRules::check_excluded(const std::vector<NamedLayer>& layers) const {
  if (!config_.exclude_modules) return;
  const auto* entries = std::get_if<std::vector<std::string>>(&*config_.exclude_modules);
  if (!entries) return;
  for (const std::string& entry : *entries) {
    const bool is_used = std::any_of(layers.begin(), layers.end(), [&](const auto& layer) {
      return NameMatcher::entry_matches(entry, layer.name);
    });
    if (!is_used) throw_no_match(entry, "exclude_modules", layers);
  }
}

void TargetRules::check_layers(const std::vector<std::string>& hit) const {
  for (const std::int64_t layer : config_.layers_to_transform) {
    const bool is_used = std::any_of(
        hit.begin(), hit.end(), [&](const std::string& name) { return layer_of(name) == layer; });
    if (is_used) continue;
    throw Error({.what = "no adapted module is in the layer",
                 .where = "layers_to_transform",
                 .got = concat(layer)});
  }
}

bool is_output_head(const std::string& name) {
  return name == "lm_head" || name == "language_model.lm_head" || name == "language_model.output";
}

std::vector<NamedLayer> list_layers(const torch::nn::Module& model) {
  std::vector<NamedLayer> layers;
  std::string within = "/";  // the layer whose parts are passed over
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (item.key().starts_with(within)) continue;
    const bool is_linear = dynamic_cast<const Linear*>(item.value().get()) != nullptr;
    const bool is_embedding = dynamic_cast<const Embedding*>(item.value().get()) != nullptr;
    layers.push_back({item.key(), is_linear      ? LayerKind::kLinear
                                  : is_embedding ? LayerKind::kEmbedding
                                                 : LayerKind::kOther});
    if (is_linear || is_embedding) within = item.key() + ".";
  }
  return layers;
}

void check_modules_to_save(const torch::nn::Module& model, const LoraConfig& config) {
  const auto layers = list_layers(model);
  for (const std::string& entry : config.modules_to_save) {
    const bool is_found = std::any_of(layers.begin(), layers.end(), [&](const NamedLayer& layer) {
      return layer.name.ends_with(entry);
    });
    if (!is_found) throw_no_match(entry, "modules_to_save", layers);
  }
}

void throw_no_match(const std::string& entry, const std::string& where,
                    const std::vector<NamedLayer>& layers) {
  std::set<std::string> ends;
  for (const NamedLayer& layer : layers) {
    const std::string end = layer.name.substr(layer.name.rfind('.') + 1);
    if (!is_digit(end[0])) ends.insert(end);
  }
  const std::vector<std::string> known(ends.begin(), ends.end());
  const auto nearest = nearest_name(entry.substr(entry.rfind('.') + 1), known);
  throw Error({.what = "no module matches",
               .where = where,
               .got = concat("'", entry, "'"),
               .hint = nearest ? concat("did you mean '", *nearest, "'?")
                               : concat("names end with: ", join(known))});
}

}  // namespace vlm

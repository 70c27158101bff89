#include "vlm/nn/lora.h"

#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/io/safetensors.h"

namespace vlm {
namespace {

constexpr const char* kPrefix = "base_model.model.";

// Calls visit(name, linear) for every Linear of the tree that can carry a branch, in the tree's
// order.
template <typename Visit>
void for_each_linear(const torch::nn::Module& model, Visit visit) {
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (is_lora_parameter(item.key() + ".weight")) continue;
    if (auto linear = std::dynamic_pointer_cast<Linear>(item.value())) visit(item.key(), *linear);
  }
}

bool fully_matches(const std::string& pattern, const std::string& text) {
  try {
    return std::regex_match(text, std::regex(pattern));
  } catch (const std::regex_error& error) {
    throw Error({.what = "not a regular expression",
                 .where = "target_modules",
                 .got = concat("'", pattern, "': ", error.what())});
  }
}

// The value of the first pattern that matches the end of the name, or `otherwise`.
double find_pattern(const PatternList& patterns, const std::string& name, double otherwise) {
  for (const auto& [pattern, value] : patterns) {
    if (fully_matches(concat("(.*\\.)?(", pattern, ")"), name)) return value;
  }
  return otherwise;
}

bool is_target(const LoraConfig& config, const std::string& name) {
  if (config.exclude_modules && matches_module(*config.exclude_modules, name)) return false;
  return matches_module(config.target_modules, name);
}

void attach_branch(Linear& linear, const std::string& name, const LoraConfig& config) {
  const auto r = static_cast<std::int64_t>(
      find_pattern(config.rank_pattern, name, static_cast<double>(config.r)));
  const double alpha = find_pattern(config.alpha_pattern, name, config.lora_alpha);
  const double rank = static_cast<double>(r);
  const double scaling = alpha / (config.use_rslora ? std::sqrt(rank) : rank);
  linear.set_lora(std::make_shared<LoraBranch>(linear, r, scaling, config.lora_dropout));
}

std::vector<std::string> attach_branches(torch::nn::Module& model, const LoraConfig& config) {
  std::vector<std::string> hit;
  for_each_linear(model, [&](const std::string& name, Linear& linear) {
    if (!is_target(config, name)) return;
    attach_branch(linear, name, config);
    hit.push_back(name);
  });
  if (!hit.empty()) return hit;
  const std::string wanted = std::visit([](const auto& names) { return OrderedJson(names).dump(); },
                                        config.target_modules);
  throw Error({.what = "no module matches", .where = "target_modules", .got = wanted});
}

void check_shape(const TensorEntry& entry, const at::Tensor& wanted, const std::string& where) {
  if (wanted.sizes() == at::IntArrayRef(entry.shape)) return;
  throw Error({.what = "adapter tensor has the wrong shape",
               .where = where,
               .got = shape_text(entry.shape),
               .wanted = shape_text(wanted.sizes())});
}

// "lm_head.base_layer.weight" → "lm_head.weight"; empty for a name without "base_layer".
std::string without_base_layer(const std::string& name) {
  const std::string mark = ".base_layer.";
  const auto at = name.find(mark);
  return at == std::string::npos ? "" : name.substr(0, at) + "." + name.substr(at + mark.size());
}

}  // namespace

LoraBranch::LoraBranch(const Linear& base, std::int64_t r, double scaling, double dropout)
    : a_(std::make_shared<Linear>(base.in_features(), r, false)),
      b_(std::make_shared<Linear>(r, base.out_features(), false)),
      scaling_(scaling),
      dropout_(dropout) {
  a_->to(base.weight.device());
  b_->to(base.weight.device());
}

at::Tensor LoraBranch::add_to(const at::Tensor& y, const at::Tensor& x) const {
  const at::Tensor input = x.to(a_->weight.scalar_type());
  const at::Tensor dropped =
      dropout_ > 0 && a_->is_training() ? at::dropout(input, dropout_, true) : input;
  return (y + b_->forward(a_->forward(dropped)) * scaling_).to(y.scalar_type());
}

at::Tensor LoraBranch::delta() const {
  return b_->weight.to(at::kFloat).matmul(a_->weight.to(at::kFloat)) * scaling_;
}

bool matches_module(const Names& names, const std::string& module_name) {
  if (const auto* pattern = std::get_if<std::string>(&names)) {
    if (*pattern == "all-linear") return module_name != "lm_head";
    return fully_matches(*pattern, module_name);
  }
  for (const std::string& entry : std::get<std::vector<std::string>>(names)) {
    if (module_name == entry || module_name.ends_with("." + entry)) return true;
  }
  return false;
}

std::vector<std::string> attach_lora(torch::nn::Module& model, const LoraConfig& config,
                                     at::Generator generator) {
  const auto hit = attach_branches(model, config);
  const c10::NoGradGuard no_grad;
  for_each_linear(model, [&](const std::string&, Linear& linear) {
    if (!linear.lora()) return;
    const double bound = 1.0 / std::sqrt(static_cast<double>(linear.in_features()));
    // Drawn on the CPU, so that a seed means the same on every device.
    at::Tensor& a = linear.lora()->a()->weight;
    a.copy_(a.detach().to(at::kCPU).uniform_(-bound, bound, generator));
    linear.lora()->b()->weight.zero_();
  });
  return hit;
}

LoraConfig load_adapter(torch::nn::Module& model, const std::filesystem::path& folder) {
  const auto config_path = folder / "adapter_config.json";
  const LoraConfig config = LoraConfig::parse(load_ordered_json(config_path), config_path.string());
  if (has_lora(model)) merge_lora(model);
  attach_branches(model, config);
  std::map<std::string, at::Tensor> wanted, base;
  for (auto& item : model.named_parameters()) {
    (is_lora_parameter(item.key()) ? wanted : base)[item.key()] = item.value();
  }

  const SafetensorsFile file(folder / "adapter_model.safetensors");
  const c10::NoGradGuard no_grad;
  for (const auto& [key, entry] : file.entries()) {
    const std::string name = key.starts_with(kPrefix) ? key.substr(std::strlen(kPrefix)) : key;
    const std::string where = concat(file.path().string(), ": ", key);
    if (const auto own = base.find(without_base_layer(name)); own != base.end()) {
      // PEFT also stores the base weights of an adapted output head.
      check_shape(entry, own->second, where);
      own->second.set_data(file.tensor(key).to(own->second.options()));
      continue;
    }
    const auto found = wanted.find(name);
    if (found == wanted.end()) {
      throw Error({.what = "adapter tensor has no place in the model",
                   .where = where,
                   .hint = "only LoRA branches on linear layers are supported"});
    }
    check_shape(entry, found->second, where);
    found->second.copy_(file.tensor(key));
    wanted.erase(found);
  }
  if (!wanted.empty()) {
    throw Error({.what = concat(wanted.size(), " adapter tensors are missing"),
                 .where = file.path().string(),
                 .got = concat("no ", kPrefix, wanted.begin()->first)});
  }
  return config;
}

void save_adapter(const torch::nn::Module& model, const LoraConfig& config,
                  const std::filesystem::path& folder, const std::string& base_model) {
  NamedTensors tensors;
  for (const auto& item : model.named_parameters()) {
    if (is_lora_parameter(item.key())) tensors.emplace_back(kPrefix + item.key(), item.value());
  }
  std::filesystem::create_directories(folder);
  save_safetensors(folder / "adapter_model.safetensors", tensors);
  save_text(folder / "adapter_config.json", config.to_json(base_model).dump(2) + "\n");
}

void merge_lora(torch::nn::Module& model) {
  const c10::NoGradGuard no_grad;
  for_each_linear(model, [](const std::string&, Linear& linear) {
    if (!linear.lora()) return;
    // A new tensor, as the old one may be the mapped file or shared with a tied layer.
    const at::Tensor merged = linear.weight.to(at::kFloat) + linear.lora()->delta();
    linear.weight.set_data(merged.to(linear.weight.scalar_type()));
    linear.set_lora(nullptr);
  });
}

bool has_lora(const torch::nn::Module& model) {
  bool any = false;
  for_each_linear(model, [&](const std::string&, Linear& linear) { any = any || linear.lora(); });
  return any;
}

bool is_lora_parameter(const std::string& name) {
  return name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight");
}

}  // namespace vlm

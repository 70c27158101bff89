#include "vlm/nn/lora/lora.h"

#include <ATen/ops/linalg_svd.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

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
  if (config.saves_module(name)) return false;
  if (config.exclude_modules && matches_module(*config.exclude_modules, name)) return false;
  return matches_module(config.target_modules, name);
}

void attach_branch(Linear& linear, const std::string& name, const LoraConfig& config) {
  const auto r = static_cast<std::int64_t>(
      find_pattern(config.rank_pattern, name, static_cast<double>(config.r)));
  const double alpha = find_pattern(config.alpha_pattern, name, config.lora_alpha);
  const double rank = static_cast<double>(r);
  const BranchOptions options{.r = r,
                              .scaling = alpha / (config.use_rslora ? std::sqrt(rank) : rank),
                              .dropout = config.lora_dropout,
                              .has_magnitude = config.use_dora};
  linear.set_lora(std::make_shared<LoraBranch>(linear, options));
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

// A and B take over the largest singular directions of W, which keeps the rest.
void initialize_pissa(Linear& linear, const std::string& name) {
  LoraBranch& branch = *linear.lora();
  const std::int64_t r = branch.a()->out_features();
  const std::int64_t most = std::min(linear.in_features(), linear.out_features());
  if (linear.nf4() || r > most) {
    throw Error({.what = "pissa can't split the layer's weight",
                 .where = name,
                 .got = linear.nf4() ? "weights in NF4" : concat("rank ", r),
                 .wanted = linear.nf4() ? "method lora" : concat("at most ", most)});
  }
  const at::Tensor weight = linear.weight.to(at::kFloat);
  const auto [u, s, vh] = at::linalg_svd(weight, /*full_matrices=*/false);
  const at::Tensor root = (s.narrow(0, 0, r) / branch.scaling()).sqrt();
  branch.initial_a = root.unsqueeze(1) * vh.narrow(0, 0, r);  // [r, in]
  branch.initial_b = u.narrow(1, 0, r) * root;                // [out, r]
  branch.a()->weight.copy_(branch.initial_a);
  branch.b()->weight.copy_(branch.initial_b);
  linear.set_weight((weight - branch.delta()).to(linear.weight.scalar_type()));
}

void initialize_branch(Linear& linear, const std::string& kind, at::Generator& generator) {
  // Drawn on the CPU, so that a seed means the same on every device.
  at::Tensor& a = linear.lora()->a()->weight;
  at::Tensor drawn = a.detach().to(at::kCPU);
  if (kind == "gaussian") {
    drawn.normal_(0, 1.0 / static_cast<double>(a.size(0)), generator);
  } else {
    TORCH_CHECK(kind == "true", "init_lora_weights ", kind);
    const double bound = 1.0 / std::sqrt(static_cast<double>(linear.in_features()));
    drawn.uniform_(-bound, bound, generator);
  }
  a.copy_(drawn);
  linear.lora()->b()->weight.zero_();
}

}  // namespace

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

bool LoraConfig::saves_module(const std::string& name) const {
  for (const std::string& entry : modules_to_save) {
    // PEFT's rule is the end of the name of the module, or of one that it lies in.
    for (std::size_t end = 0; end != std::string::npos;) {
      end = name.find('.', end + 1);
      if (name.substr(0, end).ends_with(entry)) return true;
    }
  }
  return false;
}

std::vector<std::string> attach_lora(torch::nn::Module& model, const LoraConfig& config,
                                     at::Generator generator) {
  const auto hit = attach_branches(model, config);
  adapter_tensors(model, config);  // finds what modules_to_save can't mean
  const c10::NoGradGuard no_grad;
  for_each_linear(model, [&](const std::string& name, Linear& linear) {
    LoraBranch* branch = linear.lora();
    if (!branch) return;
    if (config.init_lora_weights == "pissa") {
      initialize_pissa(linear, name);
    } else {
      initialize_branch(linear, config.init_lora_weights, generator);
    }
    if (branch->magnitude.defined()) branch->magnitude.copy_(branch->row_norms(linear));
  });
  return hit;
}

void attach_empty(torch::nn::Module& model, const LoraConfig& config) {
  attach_branches(model, config);
  if (config.init_lora_weights != "pissa") return;
  // Its A and B belong to what the decomposition leaves of the base.
  const c10::NoGradGuard no_grad;
  for_each_linear(model, [](const std::string& name, Linear& linear) {
    if (linear.lora()) initialize_pissa(linear, name);
  });
}

void merge_lora(torch::nn::Module& model) {
  const c10::NoGradGuard no_grad;
  for_each_linear(model, [](const std::string&, Linear& linear) {
    if (!linear.lora()) return;
    // A new tensor, as the old one may be the mapped file or shared with a tied layer.
    const at::ScalarType dtype = linear.weight.defined() ? linear.weight.scalar_type() : at::kFloat;
    const at::Tensor merged = linear.lora()->merged(linear).to(dtype);
    linear.set_lora(nullptr);
    linear.set_weight(merged);
  });
}

bool has_lora(const torch::nn::Module& model) {
  bool any = false;
  for_each_linear(model, [&](const std::string&, Linear& linear) { any = any || linear.lora(); });
  return any;
}

bool is_lora_parameter(const std::string& name) {
  return name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight") ||
         name.ends_with(".lora_magnitude_vector");
}

}  // namespace vlm

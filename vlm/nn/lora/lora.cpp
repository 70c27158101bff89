#include "vlm/nn/lora/lora.h"

#include <ATen/ops/linalg_svd.h>
#include <c10/core/GradMode.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/nn/lora/embedding_branch.h"
#include "vlm/nn/lora/shared_head.h"
#include "vlm/nn/lora/target_rules.h"
#include "vlm/nn/lora/token_rows.h"

namespace vlm {
namespace {

// Calls visit(name, layer) for every Linear or Embedding of the tree, but those of adapters, in the
// tree's order.
template <typename Layer, typename Visit>
void for_each_layer(const torch::nn::Module& model, Visit visit) {
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (is_lora_parameter(item.key() + ".weight")) continue;
    if (auto layer = std::dynamic_pointer_cast<Layer>(item.value())) visit(item.key(), *layer);
  }
}

// Throws Error where the branches can't be in this machine's memory.
void check_memory(const std::vector<std::pair<std::string, double>>& sizes,
                  const LoraConfig& config) {
  const double memory =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  double bytes = 0;
  for (const auto& [name, size] : sizes) bytes += size;
  if (bytes <= memory) return;
  constexpr double kGigabyte = 1e9;
  throw Error({.what = "the adapter is larger than the memory of this machine",
               .where = config.rank_pattern.empty() ? "r" : "r, rank_pattern",
               .got = concat(std::llround(bytes / kGigabyte), " GB with r = ", config.r),
               .wanted = concat("at most ", std::llround(memory / kGigabyte), " GB")});
}

BranchOptions branch_options(const std::string& name, const LoraConfig& config,
                             const TargetRules& rules) {
  const std::int64_t r = rules.rank(name);
  const double rank = static_cast<double>(r);
  return {.r = r,
          .scaling = rules.alpha(name) / (config.use_rslora ? std::sqrt(rank) : rank),
          .dropout = config.lora_dropout,
          .has_magnitude = config.use_dora};
}

double branch_bytes(std::int64_t r, std::int64_t in, std::int64_t out) {
  return 4.0 * static_cast<double>(r) * static_cast<double>(in + out);
}

// Whether a module gets a branch: what the rules hit, and both of a shared weight where its
// branches are tied.
class Choice {
 public:
  Choice(const torch::nn::Module& model, const LoraConfig& config)
      : rules(config), shared_(find_shared_head(model)), tying_(find_tying(config)) {
    if (!shared_ || !tying_.are_branches_tied) return;
    if (config.init_lora_weights == "pissa") {
      throw Error({.what = "pissa splits weights, and can't keep them tied",
                   .where = "ensure_weight_tying"});
    }
    if (rules.rank(shared_->embedding_name) != rules.rank(shared_->head_name)) {
      throw Error({.what = "tied layers need one rank",
                   .where = "rank_pattern",
                   .got = concat(rules.rank(shared_->embedding_name), " and ",
                                 rules.rank(shared_->head_name))});
    }
  }

  bool has_branch(const std::string& name, LayerKind kind) const {
    return is_tied(name) || rules.hits({name, kind});
  }
  bool is_tied(const std::string& name) const {
    return shared_ && tying_.are_branches_tied &&
           (name == shared_->embedding_name || name == shared_->head_name);
  }
  // The head's branch becomes the embedding's.
  void tie_branches() const {
    if (shared_ && tying_.are_branches_tied) {
      shared_->head->lora()->share(*shared_->embedding->lora());
    }
  }

  const TargetRules rules;

 private:
  std::optional<SharedHead> shared_;
  TyingRules tying_;
};

std::vector<std::string> attach_branches(torch::nn::Module& model, const LoraConfig& config) {
  const Choice choice(model, config);
  for (const NamedLayer& layer : list_layers(model)) {
    if (layer.kind == LayerKind::kOther) choice.rules.hits(layer);  // throws
  }
  std::vector<std::pair<std::string, double>> sizes;
  for_each_layer<Linear>(model, [&](const std::string& name, Linear& linear) {
    if (!choice.has_branch(name, LayerKind::kLinear)) return;
    sizes.emplace_back(
        name, branch_bytes(choice.rules.rank(name), linear.in_features(), linear.out_features()));
  });
  for_each_layer<Embedding>(model, [&](const std::string& name, Embedding& embedding) {
    if (!choice.has_branch(name, LayerKind::kEmbedding)) return;
    sizes.emplace_back(name, branch_bytes(choice.rules.rank(name), embedding.weight.size(0),
                                          embedding.weight.size(1)));
  });
  check_memory(sizes, config);
  for_each_layer<Linear>(model, [&](const std::string& name, Linear& linear) {
    if (!choice.has_branch(name, LayerKind::kLinear)) return;
    linear.set_lora(
        std::make_shared<LoraBranch>(linear, branch_options(name, config, choice.rules)));
  });
  for_each_layer<Embedding>(model, [&](const std::string& name, Embedding& embedding) {
    if (!choice.has_branch(name, LayerKind::kEmbedding)) return;
    embedding.set_lora(
        std::make_shared<EmbeddingBranch>(embedding, branch_options(name, config, choice.rules)));
  });
  choice.tie_branches();
  std::vector<std::string> hit;
  for (const auto& [name, size] : sizes) hit.push_back(name);
  if (!hit.empty()) return hit;
  const std::string wanted = std::visit([](const auto& names) { return OrderedJson(names).dump(); },
                                        config.target_modules);
  throw Error({.what = "no module matches", .where = "target_modules", .got = wanted});
}

// A shared weight, of which one name is saved, becomes two.
void part_saved(torch::nn::Module& model, const LoraConfig& config) {
  const auto shared = find_shared_head(model);
  if (!shared || find_tying(config).are_saved_tied) return;
  if (!config.saves_module(shared->embedding_name) && !config.saves_module(shared->head_name)) {
    return;
  }
  shared->head->set_weight(shared->head->weight.detach().clone());
}

// What all adapters begin with, new ones and those of files.
std::vector<std::string> attach_all(torch::nn::Module& model, const LoraConfig& config) {
  check_modules_to_save(model, config);
  const auto hit = attach_branches(model, config);
  attach_tokens(model, config);
  part_saved(model, config);
  return hit;
}

// A and B take over the largest singular directions of W, which keeps the rest.
void initialize_pissa(Linear& linear, const std::string& name) {
  LoraBranch& branch = *linear.lora();
  const std::int64_t r = branch.a()->out_features();
  const std::int64_t most = std::min(linear.in_features(), linear.out_features());
  if (linear.is_quantized() || r > most) {
    throw Error({.what = "pissa can't split the layer's weight",
                 .where = name,
                 .got = linear.is_quantized() ? concat("weights in ", linear.stored().format())
                                              : concat("rank ", r),
                 .wanted = linear.is_quantized() ? "method lora" : concat("at most ", most)});
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

// As the nn.Embedding that PEFT makes of it.
void initialize_branch(EmbeddingBranch& branch, at::Generator& generator) {
  at::Tensor drawn = branch.b.detach().to(at::kCPU);
  drawn.normal_(0, 1, generator);
  branch.b.copy_(drawn);
  branch.a.zero_();
}

void check_tying(const torch::nn::Module& model, const LoraConfig& config) {
  if (!config.ensure_weight_tying) return;
  const TyingRules tying = find_tying(config);
  const bool is_shared = find_shared_head(model).has_value();
  const bool is_used =
      tying.are_saved_tied || tying.are_branches_tied || !config.trainable_token_indices.empty();
  if (is_shared && is_used) return;
  throw Error({.what = is_shared ? "nothing that is tied is trained"
                                 : "the model's output head has a weight of its own",
               .where = "ensure_weight_tying",
               .wanted = is_shared ? "embed_tokens or lm_head in target_modules or modules_to_save"
                                   : "false"});
}

}  // namespace

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
  TargetRules(config).check_all_hit(list_layers(model));
  check_tying(model, config);
  const auto hit = attach_all(model, config);
  const c10::NoGradGuard no_grad;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (const auto embedding = std::dynamic_pointer_cast<Embedding>(item.value())) {
      EmbeddingBranch* branch = embedding->lora();
      if (!branch) continue;
      initialize_branch(*branch, generator);
      if (branch->magnitude.defined()) branch->magnitude.copy_(branch->column_norms(*embedding));
    }
    const auto linear = std::dynamic_pointer_cast<Linear>(item.value());
    if (!linear || !linear->lora()) continue;
    LoraBranch* branch = linear->lora();
    if (config.init_lora_weights == "pissa") {
      initialize_pissa(*linear, item.key());
    } else {
      initialize_branch(*linear, config.init_lora_weights, generator);
    }
    if (branch->magnitude.defined()) branch->magnitude.copy_(branch->row_norms(*linear));
  }
  return hit;
}

void attach_empty(torch::nn::Module& model, const LoraConfig& config) {
  attach_all(model, config);
  if (config.init_lora_weights != "pissa") return;
  // Its A and B belong to what the decomposition leaves of the base.
  const c10::NoGradGuard no_grad;
  for_each_layer<Linear>(model, [](const std::string& name, Linear& linear) {
    if (linear.lora()) initialize_pissa(linear, name);
  });
}

bool has_lora(const torch::nn::Module& model) {
  bool any = false;
  const auto look = [&](const std::string&, const auto& layer) {
    any = any || layer.lora() || layer.tokens();
  };
  for_each_layer<Linear>(model, look);
  for_each_layer<Embedding>(model, look);
  return any;
}

bool is_lora_parameter(const std::string& name) {
  for (const char* end :
       {".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B",
        ".lora_magnitude_vector", ".trainable_tokens_delta"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

}  // namespace vlm

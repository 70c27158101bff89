// What an adapter owns, and its folder: adapter_config.json and adapter_model.safetensors.
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/io/safetensors.h"
#include "vlm/nn/lora/embedding_branch.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/lora/target_rules.h"

namespace vlm {
namespace {

constexpr const char* kPrefix = "base_model.model.";

struct Branches {
  std::map<std::string, const LoraBranch*> linears;
  std::map<std::string, const EmbeddingBranch*> embeddings;
};

Branches find_branches(const torch::nn::Module& model) {
  Branches branches;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const auto* linear = dynamic_cast<const Linear*>(item.value().get());
    const auto* embedding = dynamic_cast<const Embedding*>(item.value().get());
    if (linear && linear->lora()) branches.linears[item.key()] = linear->lora();
    if (embedding && embedding->lora()) branches.embeddings[item.key()] = embedding->lora();
  }
  return branches;
}

std::string module_of(const std::string& name) {
  return name.substr(0, name.rfind('.'));
}

// Parameters of the modules to save: what one of them shares is saved under each name.
std::set<const void*> find_saved(const torch::nn::Module& model, const LoraConfig& config) {
  std::set<const void*> saved;
  for (const auto& item : model.named_parameters()) {
    if (config.saves_module(module_of(item.key())))
      saved.insert(item.value().unsafeGetTensorImpl());
  }
  return saved;
}

void check_shape(const at::Tensor& stored, const at::Tensor& wanted, const std::string& where) {
  if (wanted.sizes() == stored.sizes()) return;
  throw Error({.what = "adapter tensor has the wrong shape",
               .where = where,
               .got = shape_text(stored.sizes()),
               .wanted = shape_text(wanted.sizes())});
}

// "lm_head.base_layer.weight" → "lm_head.weight"; empty for a name without "base_layer".
std::string without_base_layer(const std::string& name) {
  for (const std::string mark : {".token_adapter.base_layer.", ".base_layer."}) {
    const auto at = name.find(mark);
    if (at != std::string::npos) return name.substr(0, at) + "." + name.substr(at + mark.size());
  }
  return "";
}

// The file is read, not mapped: it may be changed while it is.
void fill(const std::map<std::string, at::Tensor>& base, std::map<std::string, at::Tensor> wanted,
          const std::filesystem::path& file) {
  const c10::NoGradGuard no_grad;
  for (const auto& [stored, tensor] : read_safetensors(file)) {
    const std::string key = stored.starts_with(kPrefix) ? stored : kPrefix + stored;
    const std::string where = concat(file.string(), ": ", stored);
    const auto found = wanted.find(key);
    if (found != wanted.end()) {
      check_shape(tensor, found->second, where);
      found->second.copy_(tensor);
      wanted.erase(found);
      continue;
    }
    const auto own = base.find(without_base_layer(key.substr(std::strlen(kPrefix))));
    if (own == base.end()) {
      throw Error({.what = "adapter tensor has no place in the model", .where = where});
    }
    // PEFT also stores the base weights of adapted embeddings and output heads.
    check_shape(tensor, own->second, where);
    own->second.set_data(tensor.to(own->second.options()));
  }
  if (wanted.empty()) return;
  throw Error({.what = concat(wanted.size(), " adapter tensors are missing"),
               .where = file.string(),
               .got = concat("no ", wanted.begin()->first)});
}

// The plain LoRA that adds B A − B₀ A₀ to a base that was not relieved of B₀ A₀.
LoraConfig to_plain(LoraConfig config) {
  config.init_lora_weights = "true";
  config.r *= 2;
  for (auto& [pattern, r] : config.rank_pattern) r *= 2;
  const double factor = config.use_rslora ? std::sqrt(2.0) : 2.0;  // keeps the scaling
  config.lora_alpha *= factor;
  for (auto& [pattern, alpha] : config.alpha_pattern) alpha *= factor;
  return config;
}

at::Tensor to_plain(const AdapterTensor& tensor, const Branches& branches) {
  const bool is_a = tensor.name.ends_with("lora_A.weight");
  if (is_a || tensor.name.ends_with("lora_B.weight")) {
    const LoraBranch& branch = *branches.linears.at(module_of(module_of(tensor.name)));
    return is_a ? at::cat({tensor.value, branch.initial_a}, 0)
                : at::cat({tensor.value, -branch.initial_b}, 1);
  }
  // Embeddings began with nothing.
  const bool is_embedding_a = tensor.name.ends_with("lora_embedding_A");
  if (!is_embedding_a && !tensor.name.ends_with("lora_embedding_B")) return tensor.value;
  return at::cat({tensor.value, at::zeros_like(tensor.value)}, is_embedding_a ? 0 : 1);
}

}  // namespace

std::vector<AdapterTensor> adapter_tensors(const torch::nn::Module& model,
                                           const LoraConfig& config) {
  check_modules_to_save(model, config);
  const Branches branches = find_branches(model);
  const std::set<const void*> saved = find_saved(model, config);
  std::set<const void*> seen;  // rows of tokens may have two names, and are stored once
  std::vector<AdapterTensor> found;
  for (const auto& item : model.named_parameters()) {
    const std::string& name = item.key();
    const void* tensor = item.value().unsafeGetTensorImpl();
    const std::string module = module_of(name);
    const bool is_adapted =
        branches.linears.contains(module) || branches.embeddings.contains(module);
    if (saved.contains(tensor) || (is_lora_parameter(name) && seen.insert(tensor).second)) {
      found.push_back({kPrefix + name, name, item.value()});
    } else if (name.ends_with(".bias") &&
               (config.bias == "all" || (config.bias == "lora_only" && is_adapted))) {
      const std::string key = is_adapted ? module + ".base_layer.bias" : name;
      found.push_back({kPrefix + key, name, item.value()});
    }
  }
  return found;
}

LoraConfig load_adapter_config(const std::filesystem::path& folder) {
  const auto path = folder / "adapter_config.json";
  return LoraConfig::parse(load_ordered_json(path), path.string());
}

LoraConfig load_adapter(torch::nn::Module& model, const std::filesystem::path& folder) {
  const LoraConfig config = load_adapter_config(folder);
  if (has_lora(model)) merge_lora(model);
  attach_empty(model, config);
  std::map<std::string, at::Tensor> wanted, base;
  for (const auto& item : model.named_parameters()) base[item.key()] = item.value();
  for (const AdapterTensor& tensor : adapter_tensors(model, config)) {
    wanted[tensor.key] = tensor.value;
    base.erase(tensor.name);
  }
  fill(base, std::move(wanted), folder / "adapter_model.safetensors");
  return config;
}

void save_adapter(const torch::nn::Module& model, const LoraConfig& config,
                  const std::filesystem::path& folder, const std::string& base_model) {
  const bool is_pissa = config.init_lora_weights == "pissa";
  const auto branches = find_branches(model);
  NamedTensors tensors;
  for (const AdapterTensor& tensor : adapter_tensors(model, config)) {
    tensors.emplace_back(tensor.key, is_pissa ? to_plain(tensor, branches) : tensor.value);
  }
  make_folders(folder);
  save_safetensors(folder / "adapter_model.safetensors", tensors);
  const LoraConfig written = is_pissa ? to_plain(config) : config;
  save_text(folder / "adapter_config.json", written.to_json(base_model).dump(2) + "\n");
}

}  // namespace vlm

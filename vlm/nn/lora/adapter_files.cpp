// What an adapter owns, and its folder: adapter_config.json and adapter_model.safetensors.
#include <ATen/ops/cat.h>
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
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

constexpr const char* kPrefix = "base_model.model.";

std::map<std::string, const LoraBranch*> find_branches(const torch::nn::Module& model) {
  std::map<std::string, const LoraBranch*> branches;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const auto* linear = dynamic_cast<const Linear*>(item.value().get());
    if (linear && linear->lora()) branches[item.key()] = linear->lora();
  }
  return branches;
}

// modules_to_save has to name modules, and no weights that serve under a second name: training one
// of them would train both.
void check_modules(const torch::nn::Module& model, const LoraConfig& config) {
  for (const std::string& entry : config.modules_to_save) {
    bool is_found = false;
    for (const auto& item : model.named_modules("", /*include_self=*/false)) {
      is_found = is_found || item.key().ends_with(entry);
    }
    if (is_found) continue;
    throw Error(
        {.what = "no module matches", .where = "modules_to_save", .got = concat("'", entry, "'")});
  }
  if (config.modules_to_save.empty()) return;
  std::map<const void*, std::string> first;
  for (const auto& item : model.named_parameters()) {
    const auto [at, is_new] = first.emplace(item.value().unsafeGetTensorImpl(), item.key());
    if (is_new) continue;
    if (!config.saves_module(item.key()) && !config.saves_module(at->second)) continue;
    throw Error({.what = "a module to save shares its weights with another",
                 .where = "modules_to_save",
                 .got = concat(at->second, " and ", item.key())});
  }
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

void fill(const std::map<std::string, at::Tensor>& base, std::map<std::string, at::Tensor> wanted,
          const SafetensorsFile& file) {
  const c10::NoGradGuard no_grad;
  for (const auto& [stored, entry] : file.entries()) {
    const std::string key = stored.starts_with(kPrefix) ? stored : kPrefix + stored;
    const std::string where = concat(file.path().string(), ": ", stored);
    const auto found = wanted.find(key);
    if (found != wanted.end()) {
      check_shape(entry, found->second, where);
      found->second.copy_(file.tensor(stored));
      wanted.erase(found);
      continue;
    }
    const auto own = base.find(without_base_layer(key.substr(std::strlen(kPrefix))));
    if (own == base.end()) {
      throw Error({.what = "adapter tensor has no place in the model", .where = where});
    }
    // PEFT also stores the base weights of an adapted output head.
    check_shape(entry, own->second, where);
    own->second.set_data(file.tensor(stored).to(own->second.options()));
  }
  if (wanted.empty()) return;
  throw Error({.what = concat(wanted.size(), " adapter tensors are missing"),
               .where = file.path().string(),
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

at::Tensor to_plain(const AdapterTensor& tensor,
                    const std::map<std::string, const LoraBranch*>& branches) {
  const auto mark = tensor.name.rfind(".lora_");
  const auto branch = branches.find(tensor.name.substr(0, mark));
  if (mark == std::string::npos || branch == branches.end()) return tensor.value;
  return tensor.name.ends_with("lora_A.weight")
             ? at::cat({tensor.value, branch->second->initial_a}, 0)
             : at::cat({tensor.value, -branch->second->initial_b}, 1);
}

}  // namespace

std::vector<AdapterTensor> adapter_tensors(const torch::nn::Module& model,
                                           const LoraConfig& config) {
  check_modules(model, config);
  const auto branches = find_branches(model);
  std::vector<AdapterTensor> found;
  for (const auto& item : model.named_parameters()) {
    const std::string& name = item.key();
    const std::string module = name.substr(0, name.rfind('.'));
    const bool is_adapted = branches.count(module) > 0;
    if (is_lora_parameter(name) || config.saves_module(module)) {
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
  fill(base, std::move(wanted), SafetensorsFile(folder / "adapter_model.safetensors"));
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

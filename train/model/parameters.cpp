#include "train/model/parameters.h"

#include <torch/nn/module.h>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

// loraplus_lr_embedding's default
constexpr double kLoraPlusEmbeddingRate = 1e-6;

struct PartRate {
  const char* key;
  std::optional<double> rate;
  std::vector<std::string> parts;
  bool is_used = false;
};

std::vector<PartRate> part_rates(const TrainConfig& config) {
  return {{"vision_lr", config.vision_lr, {"vision_model"}},
          {"connector_lr", config.connector_lr, {"connector"}},
          {"text_lr", config.text_lr, {"text_model", "lm_head"}}};
}

// True for a parameter of `part`; for none, where the model doesn't have that part.
bool is_in_part(const VisionLanguageModel& model, const std::string& name,
                const std::string& part) {
  const auto parts = model.parts();
  const auto found = parts.find(part);
  return found != parts.end() && name.starts_with(found->second + ".");
}

double rate_factor(const VisionLanguageModel& model, const std::string& name,
                   const at::Tensor& value, const TrainConfig& config,
                   std::vector<PartRate>& rates) {
  double factor = 1;
  for (PartRate& one : rates) {
    for (const std::string& part : one.parts) {
      if (!one.rate || !is_in_part(model, name, part)) continue;
      factor = *one.rate / config.learning_rate;
      one.is_used = true;
    }
  }
  const bool is_embedding =
      name.ends_with(".lora_embedding_A") || name.ends_with(".lora_embedding_B");
  if (config.loraplus_lr_ratio && is_embedding && config.learning_rate > 0) {
    return kLoraPlusEmbeddingRate / config.learning_rate;
  }
  const bool is_faster = name.ends_with(".lora_B.weight") || value.dim() == 1;
  return config.loraplus_lr_ratio && is_faster ? factor * *config.loraplus_lr_ratio : factor;
}

std::int64_t count_quantized(const torch::nn::Module& model) {
  std::int64_t count = 0;
  for (const auto& module : model.modules()) {
    const auto* linear = dynamic_cast<const Linear*>(module.get());
    if (linear && linear->is_quantized()) count += linear->in_features() * linear->out_features();
  }
  return count;
}

}  // namespace

TrainedParameters choose_parameters(VisionLanguageModel& model, const TrainConfig& config,
                                    const LoraConfig& lora) {
  std::set<std::string> owned;
  if (config.method != "full") {
    for (const AdapterTensor& tensor : adapter_tensors(model.module(), lora))
      owned.insert(tensor.name);
  }
  for (const std::string& part : config.freeze) {
    if (model.parts().count(part)) continue;
    throw Error({.what = "the model has no such part", .where = "freeze", .got = part});
  }
  TrainedParameters chosen;
  std::vector<PartRate> rates = part_rates(config);
  std::int64_t count = 0, total = count_quantized(model.module());
  std::set<const void*> seen;  // a tensor of two names has its turn under the first
  for (const auto& item : model.module().named_parameters()) {
    const std::string& name = item.key();
    bool is_trained = config.method == "full" || owned.count(name) > 0;
    for (const std::string& part : config.freeze) {
      is_trained = is_trained && !is_in_part(model, name, part);
    }
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    item.value().set_requires_grad(is_trained);
    total += item.value().numel();
    if (!is_trained) continue;
    count += item.value().numel();
    chosen.parameters.emplace_back(name, item.value());
    chosen.rate_factors.push_back(rate_factor(model, name, item.value(), config, rates));
  }
  if (chosen.parameters.empty()) {
    throw Error({.what = "nothing is left to train", .where = "freeze"});
  }
  for (const PartRate& one : rates) {
    if (!one.rate || one.is_used) continue;
    throw Error({.what = "nothing is trained in the part that has a learning rate of its own",
                 .where = one.key,
                 .got = concat(*one.rate)});
  }
  log_info(concat("trains ", count, " of ", total, " parameters"));
  return chosen;
}

std::int64_t count_parameters(const VisionLanguageModel& model) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : model.module().parameters()) count += parameter.numel();
  return count;
}

}  // namespace vlm::train

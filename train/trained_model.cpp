#include "train/trained_model.h"

#include <ATen/CPUGeneratorImpl.h>

#include <nlohmann/json.hpp>

#include "train/batches/data_plan.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/hub_pull.h"

namespace vlm::train {
namespace {

bool is_part(const std::string& parameter, const std::string& part) {
  return parameter.starts_with(part + ".") || parameter.find("." + part + ".") != std::string::npos;
}

ModelPtr load_base(const TrainConfig& config, const std::filesystem::path& folder,
                   const LoadOptions& options, at::Generator& generator) {
  if (config.init_weights == "random") {
    ModelPtr model = make_model(folder);
    initialize_weights(*model, model->initializer_range(), generator);
    model->tie_weights();
    model->to(options.device);
    return model;
  }
  return load_model(folder, options);
}

NamedTensors choose_trainable(VisionLanguageModel& model, const TrainConfig& config) {
  NamedTensors trainable;
  std::int64_t count = 0, total = 0;
  const auto tied = model.tied_weights();
  for (const auto& item : model.named_parameters()) {
    const std::string& name = item.key();
    bool is_trained = config.method == "full" || is_lora_parameter(name);
    for (const std::string& part : config.freeze) is_trained = is_trained && !is_part(name, part);
    if (tied.count(name)) continue;  // the shared parameter has its turn under its own name
    item.value().set_requires_grad(is_trained);
    total += item.value().numel();
    if (!is_trained) continue;
    count += item.value().numel();
    trainable.emplace_back(name, item.value());
  }
  if (trainable.empty()) throw Error({.what = "nothing is left to train", .where = "freeze"});
  log_info(concat("trains ", count, " of ", total, " parameters"));
  return trainable;
}

}  // namespace

LoadOptions base_options(const TrainConfig& config, const RuntimeOptions& runtime,
                         at::Device device) {
  LoadOptions options{.dtype = runtime.dtype, .device = device};
  // Small updates vanish in bfloat16 weights: what is trained is float32 unless asked otherwise.
  if (config.method == "full" && options.dtype == "auto") options.dtype = "float32";
  // A frozen base may stay as narrow as its file is: the numbers are the same.
  options.keep_bfloat16 = config.method != "full";
  return options;
}

TrainedModel load_trained_model(const TrainConfig& config, const RuntimeOptions& runtime,
                                at::Device device) {
  TrainedModel trained{.folder = find_or_pull_model(config.model_name_or_path)};
  at::Generator generator = at::detail::createCPUGenerator(
      mix_seed(static_cast<std::uint64_t>(config.seed), kWeightStream));
  trained.model =
      load_base(config, trained.folder, base_options(config, runtime, device), generator);
  if (config.method == "lora") {
    if (config.adapter) {
      trained.lora = load_adapter(*trained.model, *config.adapter);
    } else {
      trained.lora = config.lora();
      attach_lora(*trained.model, trained.lora, generator);
    }
  }
  trained.processor = load_processor(trained.folder);
  trained.trainable = choose_trainable(*trained.model, config);
  trained.model->gradient_checkpointing = config.gradient_checkpointing;
  return trained;
}

std::unique_ptr<AdamW> make_optimizer(const TrainConfig& config, const NamedTensors& trainable) {
  return std::make_unique<AdamW>(trainable, AdamWOptions{.beta1 = config.adam_beta1,
                                                         .beta2 = config.adam_beta2,
                                                         .epsilon = config.adam_epsilon,
                                                         .weight_decay = config.weight_decay});
}

void save_trained_model(const TrainedModel& trained, const TrainConfig& config,
                        const std::filesystem::path& folder) {
  if (config.method == "lora") {
    save_adapter(*trained.model, trained.lora, folder, config.model_name_or_path);
  } else {
    save_model(*trained.model, trained.folder, folder);
  }
}

}  // namespace vlm::train

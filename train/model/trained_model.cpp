#include "train/model/trained_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <torch/nn/module.h>
#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "train/batches/data_plan.h"
#include "vlm/core/error.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/nn/cpu/kept_memory.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

// The adapter to train: the one to go on from, or a new one.
LoraConfig choose_adapter(const TrainConfig& config) {
  if (!config.adapter) return config.lora();
  const LoraConfig lora = load_adapter_config(*config.adapter);
  if (lora.use_dora == (config.method == "dora")) return lora;
  throw Error({.what = "the adapter is of another method",
               .where = *config.adapter,
               .got = lora.use_dora ? "dora" : "lora",
               .wanted = config.method});
}

// The parts of the model in which a list of target_modules applies, by their modules' names without
// the "model." that most have in front. In a model of text alone that is the whole of it: only the
// head, which has to be named, lies beside the text part.
void narrow_to_parts(LoraConfig& lora, const VisionLanguageModel& model) {
  const auto parts = model.parts();
  const std::string wrapper = "model.";
  for (std::string& part : lora.target_parts) {
    const auto found = parts.find(part);
    if (found == parts.end()) {
      throw Error({.what = "the model has no such part", .where = "target_parts", .got = part});
    }
    const std::string& name = found->second;
    part = name.starts_with(wrapper) ? name.substr(wrapper.size()) : name;
  }
  if (!parts.count("vision_model")) lora.target_parts.clear();
}

// The list of a config that has none of its own stands for the model's projections, whatever they
// are called.
void name_projections(LoraConfig& lora, const VisionLanguageModel& model) {
  const std::vector<std::string> names = model.projection_names();
  if (!names.empty() && lora.target_modules == TrainConfig().target_modules) {
    lora.target_modules = names;
  }
}

// Weights in `dtype` on the device; on a GPU what is trained is float32, as load_model leaves it.
void place(VisionLanguageModel& model, const LoadOptions& options, at::ScalarType dtype) {
  auto parameters = model.module().named_parameters();
  std::map<std::string, at::Tensor> wide;
  for (const auto& item : parameters) {
    const std::string& name = item.key();
    const bool is_trained =
        options.is_trained(name) || options.is_trained(name.substr(0, name.rfind('.')));
    if (is_trained && !options.device.is_cpu()) wide[name] = item.value().to(options.device);
  }
  model.module().to(options.device, dtype);
  for (const auto& [name, value] : wide) parameters[name].set_data(value);
  for (const auto& [name, source] : model.tied_weights()) {
    const at::Tensor& widest = wide.count(name) ? parameters[name] : parameters[source];
    parameters[name].set_data(widest);
    parameters[source].set_data(widest);
  }
  model.tie_weights();
}

// Whether the products of a model in float32 are to be bfloat16: full fine-tuning on a GPU keeps
// the weights wide, and narrows them where they are multiplied.
bool multiplies_narrow(const TrainConfig& config, const RuntimeOptions& runtime,
                       at::Device device) {
  return config.method == "full" && runtime.dtype == "bfloat16" && !device.is_cpu();
}

ModelPtr load_base(const TrainConfig& config, const std::filesystem::path& folder,
                   const LoadOptions& options, at::Generator& generator) {
  if (config.init_weights == "random") {
    ModelPtr model = make_model(folder);
    initialize_weights(model->module(), model->initializer_range(), generator);
    auto parameters = model->module().named_parameters();
    for (const auto& [name, source] : model->tied_weights()) {
      parameters[name].set_data(parameters[source]);
    }
    // `auto` is float32 here: base_options.
    const auto dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
    place(*model, options, dtype);
    return model;
  }
  return load_model(folder, options);
}

// Whether fresh pages are much of a step's work. Of a larger model they are little, and what is
// kept for the next of its size only adds to the peak.
bool is_small(const VisionLanguageModel& model) {
  constexpr std::int64_t kMostParameters = 50'000'000;
  return count_parameters(model) <= kMostParameters;
}

}  // namespace

LoadOptions base_options(const TrainConfig& config, const LoraConfig& lora,
                         const RuntimeOptions& runtime, at::Device device) {
  if (is_quantizing(runtime.dtype)) {
    throw Error({.what = "weights in 8 or 4 bits are for running models",
                 .where = "--dtype " + runtime.dtype,
                 .wanted = "auto, float32 or bfloat16, or method qlora"});
  }
  LoadOptions options{.dtype = runtime.dtype, .device = device};
  // Small updates vanish in bfloat16 weights: what is trained is float32 unless asked otherwise,
  // and on a GPU always (multiplies_narrow).
  const bool is_full = config.method == "full";
  if (is_full && (options.dtype == "auto" || !device.is_cpu())) options.dtype = "float32";
  // There a frozen base is bfloat16: half the memory, and products several times as quick.
  if (!is_full && options.dtype == "auto" && !device.is_cpu()) options.dtype = "bfloat16";
  options.quantize_nf4 = config.method == "qlora";
  options.is_trained = [lora](const std::string& name) {
    return lora.saves_module(name) || (lora.bias != "none" && name.ends_with(".bias"));
  };
  // PiSSA changes the base.
  const bool is_changed = lora.init_lora_weights == "pissa";
  options.mixed_precision = config.trains_adapter() && !is_changed;
  return options;
}

TrainedModel load_trained_model(const TrainConfig& config, const RuntimeOptions& runtime,
                                at::Device device) {
  return_freed_memory();
  TrainedModel trained{.folder = find_model_folder(config.model_name_or_path)};
  at::Generator generator = at::detail::createCPUGenerator(
      mix_seed(static_cast<std::uint64_t>(config.seed), kWeightStream));
  if (config.trains_adapter()) trained.lora = choose_adapter(config);
  trained.model = load_base(config, trained.folder,
                            base_options(config, trained.lora, runtime, device), generator);
  if (device.is_cpu() && is_small(*trained.model)) keep_freed_memory();
  if (multiplies_narrow(config, runtime, device)) trained.model->product_dtype = at::kBFloat16;
  // Products that stay float32; on CPUs this changes nothing.
  if (!device.is_cpu()) at::globalContext().setAllowTF32CuBLAS(true);
  if (config.adapter) {
    load_adapter(trained.model->module(), *config.adapter);
  } else if (config.trains_adapter()) {
    name_projections(trained.lora, *trained.model);
    narrow_to_parts(trained.lora, *trained.model);
    attach_lora(trained.model->module(), trained.lora, generator);
  }
  if (!device.is_cpu()) {
    torch::nn::Module& module = trained.model->module();
    trained.wide_block = join_nf4_blocks(module);
    trained.narrow_adapters = std::make_shared<NarrowAdapters>(module, trained.model->dtype());
  }
  trained.processor = load_processor(trained.folder, config.template_options());
  trained.trained = choose_parameters(*trained.model, config, trained.lora);
  trained.model->gradient_checkpointing = config.gradient_checkpointing;
  return trained;
}

void TrainedModel::release() const {
  if (wide_block) wide_block->release();
}

void begin_training(const TrainedModel& trained) {
  trained.model->module().train();
  for (const auto& module : trained.model->module().modules()) {
    const auto parameters = module->parameters();
    const bool learns = std::any_of(parameters.begin(), parameters.end(),
                                    [](const at::Tensor& one) { return one.requires_grad(); });
    if (!learns) module->eval();
  }
}

std::unique_ptr<Optimizer> make_optimizer(const TrainConfig& config, const TrainedModel& trained) {
  return make_optimizer(trained.trained.parameters, config.optimizer(),
                        trained.trained.rate_factors);
}

void save_trained_model(const TrainedModel& trained, const TrainConfig& config,
                        const std::filesystem::path& folder) {
  if (config.trains_adapter()) {
    save_adapter(trained.model->module(), trained.lora, folder, config.model_name_or_path);
  } else {
    save_model(*trained.model, trained.folder, folder);
  }
}

}  // namespace vlm::train

#include "train/commands.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "train/trainer.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/hub_pull.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora.h"

namespace vlm::train {
namespace {

struct FinetuneOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool restart = false;
};

int run_finetune(const FinetuneOptions& options, const RuntimeOptions& runtime) {
  TrainConfig config = load_train_config(options.config, options.overrides);
  const std::string output_dir = config.output_dir;
  Trainer trainer(std::move(config), {.runtime = runtime, .restart = options.restart});
  if (trainer.run() == TrainResult::kInterrupted) return 130;
  log_info("wrote " + output_dir);
  return 0;
}

struct MergeOptions {
  std::string model, adapter, output;
};

int run_merge(const MergeOptions& options, const RuntimeOptions& runtime) {
  const auto folder = find_or_pull_model(options.model);
  if (std::filesystem::exists(options.output) &&
      std::filesystem::equivalent(folder, options.output)) {
    throw Error({.what = "the merged model would overwrite its base", .where = "--output"});
  }
  prepare_runtime(runtime);
  // Weights keep the dtype they are stored in unless another is asked for.
  const std::string dtype = runtime.dtype == "auto" ? "stored" : runtime.dtype;
  const ModelPtr model = load_model(folder, {.dtype = dtype});
  load_adapter(model->module(), options.adapter);
  merge_lora(model->module());
  save_model(*model, folder, options.output);
  log_info("wrote " + options.output);
  return 0;
}

std::function<int()> add_finetune(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<FinetuneOptions>();
  CLI::App* command = app.add_subcommand("finetune", "Fine-tune a model from a config file");
  command->add_option("config", options->config, "Config file (JSON); its keys are listed below")
      ->required();
  command->add_option("--set", options->overrides, "Override a key of the config")
      ->type_name("KEY=VALUE");
  command->add_flag("--restart", options->restart,
                    "Begin anew instead of going on from the last checkpoint in output_dir");
  TrainConfig defaults;
  command->footer("Config keys:\n" + describe_fields(defaults.fields()));
  return [options, &runtime] { return run_finetune(*options, runtime); };
}

std::function<int()> add_merge(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* command = app.add_subcommand("merge", "Merge an adapter into its model's weights");
  command
      ->add_option("--model", options->model,
                   "Model folder, or org/name (in the Hugging Face cache, or pulled into it)")
      ->required();
  command->add_option("--adapter", options->adapter, "PEFT adapter folder")->required();
  command->add_option("--output", options->output, "Folder for the merged checkpoint")->required();
  return [options, &runtime] { return run_merge(*options, runtime); };
}

}  // namespace

std::map<std::string, std::function<int()>> add_commands(CLI::App& app,
                                                         const RuntimeOptions& runtime) {
  return {{"finetune", add_finetune(app, runtime)}, {"merge", add_merge(app, runtime)}};
}

}  // namespace vlm::train

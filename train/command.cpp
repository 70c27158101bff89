#include "train/command.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "train/trainer.h"
#include "vlm/core/log.h"

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

}  // namespace

std::function<int()> add_finetune_command(CLI::App& app, const RuntimeOptions& runtime) {
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

}  // namespace vlm::train

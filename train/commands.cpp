#include "train/commands.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "train/config/effective_config.h"
#include "train/config/recipes.h"
#include "train/inspect/inspect_data.h"
#include "train/jobs/distributed.h"
#include "train/plan/run_plan.h"
#include "train/run/run_folder.h"
#include "train/trainer.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/file_lock.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/model_files.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

// A config file, and what the command line changes of it.
struct ConfigChoice {
  std::string file;
  std::vector<std::string> overrides;
  std::optional<std::int64_t> max_bad_samples;

  TrainConfig load() const {
    if (file.find('=') != std::string::npos && !std::filesystem::exists(file)) {
      throw Error({.what = "the config file comes first",
                   .where = "command line",
                   .got = concat("'", file, "'"),
                   .wanted = "CONFIG key=value …"});
    }
    TrainConfig config = load_train_config(file, overrides);
    if (max_bad_samples) config.max_bad_samples = *max_bad_samples;
    return config;
  }
};

void add_config_options(CLI::App& command, ConfigChoice& choice, const std::string& meaning) {
  command.add_option("config", choice.file, meaning)->required()->check(not_empty());
  command
      .add_option("--set,overrides", choice.overrides,
                  "Keys of the config and their values in place of the file's; --set may be left "
                  "out")
      ->type_name("KEY=VALUE");
  command
      .add_option("--max-bad-samples", choice.max_bad_samples,
                  "Samples that may be passed over because they can't be used (default: the "
                  "config's max_bad_samples)")
      ->check(at_least(0));
}

struct FinetuneOptions {
  ConfigChoice config;
  bool restart = false;
};

int run_finetune(const FinetuneOptions& options, const RuntimeOptions& runtime,
                 const AnswerFunction& answer) {
  if (find_job_place().rank > 0) {  // rank 0 tells what all do
    set_log_level(std::max(log_level(), LogLevel::kWarning));
  }
  std::signal(SIGPIPE, SIG_IGN);  // that nobody reads its messages any more ends no training
  TrainConfig config = options.config.load();
  const std::string output_dir = config.output_dir;
  Trainer trainer(std::move(config), {.runtime = runtime,
                                      .restart = options.restart,
                                      .answer = answer,
                                      .config_file = options.config.file});
  if (trainer.run() == TrainResult::kInterrupted) return stop_exit_code();
  log_info("wrote " + output_dir);
  return 0;
}

struct PlanCommand {
  ConfigChoice config;
  double memory_gb = 0;
  std::int64_t processes = 1;
  std::string format = "text";
};

int run_plan(const PlanCommand& options, const RuntimeOptions& runtime) {
  const TrainConfig config = options.config.load();
  const RunPlan plan = make_plan(
      config, {.runtime = runtime, .memory_gb = options.memory_gb, .processes = options.processes});
  const OrderedJson json = plan.to_json();
  print_result(options.format == "json" ? json.dump() + "\n" : plan.to_text());
  save_plan(plan, config.output_dir, effective_config(config));
  check_fits(plan);
  return 0;
}

struct InspectDataOptions {
  ConfigChoice config;
  std::int64_t samples = 5;
  std::string html;
};

int run_inspect_data(const InspectDataOptions& options, const RuntimeOptions& runtime) {
  TrainConfig config = options.config.load();
  if (runtime.seed) config.seed = *runtime.seed;
  const Inspection found = inspect_data(config, {.samples = options.samples,
                                                 .threads = runtime.threads,
                                                 .uses_color = ::isatty(STDOUT_FILENO) != 0,
                                                 .makes_page = !options.html.empty()});
  print_result(found.text);
  if (!options.html.empty()) {
    save_text(options.html, found.page);
    log_info("wrote " + options.html);
  }
  if (stop_requested()) return stop_exit_code();
  return found.is_trainable ? 0 : 3;
}

struct MergeOptions {
  std::string model, adapter, output;
};

// The folders, and every file in them that is read.
std::vector<std::filesystem::path> read_by_merge(const std::filesystem::path& model,
                                                 const std::string& adapter) {
  std::vector<std::filesystem::path> paths = model_files(model);
  paths.push_back(model);
  if (adapter.empty()) return paths;
  for (const char* name : {"", "adapter_config.json", "adapter_model.safetensors"}) {
    paths.push_back(std::filesystem::path(adapter) / name);
  }
  return paths;
}

int run_merge(const MergeOptions& options, const RuntimeOptions& runtime) {
  if (options.adapter.empty() && runtime.dtype == "auto") {
    throw Error({.what = "there is nothing to change",
                 .where = "merge",
                 .wanted = "--adapter, or --dtype to store the model in"});
  }
  if (is_quantizing(runtime.dtype)) {
    throw Error({.what = "merge writes numbers",
                 .where = "--dtype " + runtime.dtype,
                 .wanted = "float32 or bfloat16",
                 .hint = concat("vlm quantize writes checkpoints in ", runtime.dtype)});
  }
  const auto folder = find_model_folder(options.model);
  const FolderLock lock(options.output, "wait for it, or choose another --output");
  // With what lies there of another model or adapter, merged weights would be other ones: the
  // adapter would be applied a second time.
  const std::vector<std::string> others = find_results(options.output);
  for (const auto& path : read_by_merge(folder, options.adapter)) {
    check_is_kept(path, options.output, others);
  }
  // Products and sums of weights: no GPU has a part in it.
  prepare_runtime({.device = "cpu", .dtype = runtime.dtype, .threads = runtime.threads});
  // Weights keep the dtype they are stored in unless another is asked for.
  const std::string dtype = runtime.dtype == "auto" ? "stored" : runtime.dtype;
  const ModelPtr model = load_model(folder, {.dtype = dtype});
  if (!options.adapter.empty()) {
    load_adapter(model->module(), options.adapter);
    throw_if_stopped();
    merge_lora(model->module());
  }
  throw_if_stopped();
  set_aside(options.output, others);
  save_model(*model, folder, options.output);
  log_info("wrote " + options.output);
  return 0;
}

struct InitConfigOptions {
  std::string name, output;
  bool lists = false;
};

int run_init_config(const InitConfigOptions& options) {
  if (options.lists) {
    std::string lines;
    for (const Recipe& recipe : recipes()) {
      lines += recipe.name + std::string(28 - std::min<std::size_t>(27, recipe.name.size()), ' ') +
               recipe.description() + "\n";
    }
    print_result(lines);
    return 0;
  }
  const Recipe& recipe = find_recipe(options.name);
  const std::string output = options.output.empty() ? options.name + ".yaml" : options.output;
  save_recipe(recipe, output);
  log_info(
      concat("wrote ", output, "; set its train_files and output_dir, then: vlm plan ", output));
  return 0;
}

std::function<int()> add_finetune(CLI::App& app, const RuntimeOptions& runtime,
                                  const AnswerFunction& answer) {
  auto options = std::make_shared<FinetuneOptions>();
  CLI::App* command = app.add_subcommand("finetune", "Fine-tune a model from a config file");
  add_config_options(*command, options->config,
                     "Config file (YAML or JSON); its keys are listed below");
  command->add_flag("--restart", options->restart,
                    "Begin anew instead of going on from the last checkpoint in output_dir");
  TrainConfig defaults;
  command->footer("Config keys:\n" + describe_fields(defaults.fields()));
  return [options, &runtime, answer] { return run_finetune(*options, runtime, answer); };
}

std::function<int()> add_plan(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<PlanCommand>();
  CLI::App* command = app.add_subcommand(
      "plan", "Say what a fine-tuning run will take: memory by part, tokens, steps, hours");
  add_config_options(*command, options->config, "Config file (YAML or JSON) of finetune");
  command
      ->add_option("--memory-gb", options->memory_gb,
                   "What each process may take, on a GPU of its memory; where it is less than the "
                   "peak, what to change is said and the exit code is 1 (0: no bound)")
      ->check(at_least(0))
      ->capture_default_str();
  command
      ->add_option("--processes", options->processes,
                   "Processes that torchrun will start; memory is that of each")
      ->check(at_least(1))
      ->capture_default_str();
  CLI::Option* format = command->add_option("--format", options->format, "What is printed")
                            ->check(CLI::IsMember({"text", "json"}))
                            ->capture_default_str();
  command->add_flag("--json{json}", options->format, "The same as --format json")->excludes(format);
  return [options, &runtime] { return run_plan(*options, runtime); };
}

std::function<int()> add_inspect_data(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<InspectDataOptions>();
  CLI::App* command = app.add_subcommand(
      "inspect-data",
      "Show what a training run would learn from its data, and what is wrong in it");
  add_config_options(*command, options->config, "Config file (YAML or JSON), as for finetune");
  command
      ->add_option("-n,--samples", options->samples,
                   "Samples shown token by token, the first that the run would take")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--html", options->html, "Write a page with the pictures, too")
      ->check(not_empty());
  return [options, &runtime] { return run_inspect_data(*options, runtime); };
}

std::function<int()> add_init_config(CLI::App& app) {
  auto options = std::make_shared<InitConfigOptions>();
  CLI::App* command =
      app.add_subcommand("init-config", "Write a config with comments to begin with");
  command->add_option("name", options->name, "Name of a recipe")->check(not_empty());
  command->add_option("output", options->output, "File to write (default: NAME.yaml)")
      ->check(not_empty());
  command->add_flag("--list", options->lists, "Print the names of all recipes and what they are");
  command->parse_complete_callback([options] {
    if (options->lists == options->name.empty()) return;
    throw CLI::ValidationError(options->lists ? "--list goes without a name"
                                              : "the name of a recipe is required, or --list");
  });
  return [options] { return run_init_config(*options); };
}

std::function<int()> add_merge(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* command = app.add_subcommand(
      "merge", "Merge an adapter into its model's weights, or store a model in another --dtype");
  command
      ->add_option("--model", options->model,
                   "Model folder, or org/name (in the Hugging Face cache, or pulled into it)")
      ->required()
      ->check(not_empty());
  command
      ->add_option("--adapter", options->adapter,
                   "PEFT adapter folder; none: only the dtype changes")
      ->check(not_empty());
  command->add_option("--output", options->output, "Folder for the merged checkpoint")
      ->required()
      ->check(not_empty());
  return [options, &runtime] { return run_merge(*options, runtime); };
}

}  // namespace

std::map<std::string, std::function<int()>> add_commands(CLI::App& app,
                                                         const RuntimeOptions& runtime,
                                                         const AnswerFunction& answer) {
  return {{"finetune", add_finetune(app, runtime, answer)},
          {"plan", add_plan(app, runtime)},
          {"inspect-data", add_inspect_data(app, runtime)},
          {"init-config", add_init_config(app)},
          {"merge", add_merge(app, runtime)}};
}

}  // namespace vlm::train

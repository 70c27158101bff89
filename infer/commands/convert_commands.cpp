#include "infer/commands/convert_commands.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "infer/quantize/quantize_model.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/file_lock.h"
#include "vlm/io/gguf/gguf_file.h"
#include "vlm/io/gguf/gguf_parts.h"
#include "vlm/models/gguf/gguf_export.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/quantized_checkpoint.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// What is converted.
struct Source {
  std::string model, mmproj, adapter;

  void declare(CLI::App& command) {
    command
        .add_option("model", model,
                    "Model folder, GGUF file, or org/name (in the Hugging Face cache, or pulled "
                    "into it)")
        ->required()
        ->check(not_empty());
    command
        .add_option("--mmproj", mmproj,
                    "With a GGUF file: the one with its vision encoder (default: that beside it)")
        ->check(not_empty());
    command
        .add_option("--adapter", adapter,
                    "PEFT adapter folder, merged into the weights (default: none)")
        ->check(not_empty());
  }

  fs::path folder() const { return find_model_folder(model, mmproj); }

  // As the numbers are stored, so that none is rounded twice; sums with an adapter are wide.
  ModelPtr load(const fs::path& folder) const {
    if (adapter.empty()) return load_model(folder, {.dtype = "stored"});
    ModelPtr model = load_model(folder, {.dtype = "float32"});
    load_adapter(model->module(), adapter);
    merge_lora(model->module());
    return model;
  }
};

struct ExportOptions {
  Source source;
  std::string output, name;
  std::string to = "gguf", type;
};

// What files are called after: the model's folder, or its name on the hub.
std::string name_of(const ExportOptions& options) {
  if (!options.name.empty()) return options.name;
  fs::path path = fs::path(options.source.model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (const auto part = parse_gguf_part(path)) return part->model;
  const std::string name = is_gguf(path) ? path.stem().string() : path.filename().string();
  return name.substr(0, name.find('@'));
}

int run_export(const ExportOptions& options, const RuntimeOptions& runtime) {
  const std::string name = name_of(options);
  if (name.empty() || name.find('/') != std::string::npos) {
    throw Error({.what = "no name for the files",
                 .where = "--name",
                 .got = concat("'", name, "'"),
                 .wanted = "one without a slash"});
  }
  const fs::path folder = options.source.folder();
  const FolderLock lock(options.output, "wait for it, or choose another --output");
  prepare_runtime({.device = "cpu", .threads = runtime.threads});
  const ModelPtr model = options.source.load(folder);
  throw_if_stopped();
  for (const fs::path& path : export_gguf(*model, folder, options.type, name, options.output)) {
    log_info("wrote " + path.string());
  }
  return 0;
}

struct QuantizeCommand {
  Source source;
  std::string output;
  QuantizeOptions options;
};

int run_quantize(QuantizeCommand command, const RuntimeOptions& runtime) {
  if (!is_quantizing(runtime.dtype)) {
    throw Error({.what = "a dtype of fewer bits is wanted",
                 .where = "--dtype",
                 .got = runtime.dtype,
                 .wanted = "int4 or int8"});
  }
  command.options.dtype = runtime.dtype;
  if (command.options.dtype == "int8" &&
      (command.options.size_mb || !command.options.calibration.empty())) {
    throw Error({.what = "only layers of 4 bits are calibrated",
                 .where = "--dtype int8",
                 .wanted = "neither --calibration nor --size-mb, or --dtype int4"});
  }
  const fs::path folder = command.source.folder();
  const FolderLock lock(command.output, "wait for it, or choose another --output");
  const fs::path output = fs::path(command.output);
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json"}) {
    if (!fs::exists(output / name)) continue;
    throw Error({.what = "there is a model already",
                 .where = command.output,
                 .got = name,
                 .wanted = "an empty folder"});
  }
  prepare_runtime({.device = "cpu", .threads = runtime.threads});
  const ModelPtr model = command.source.load(folder);
  const QuantizedModel quantized = quantize_model(*model, *load_processor(folder), command.options);
  save_quantized(*model, quantized.layers, folder, command.output);
  print_result(describe_quantized(quantized));
  log_info("wrote " + command.output);
  return 0;
}

std::function<int()> add_quantize(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<QuantizeCommand>();
  CLI::App* command = app.add_subcommand(
      "quantize", "Write a checkpoint in 4 or 8 bits, which loads without being quantized again");
  options->source.declare(*command);
  CLI::Option* calibration =
      command
          ->add_option("--calibration", options->options.calibration,
                       "Rows as for finetune, to keep what layers of 4 bits give for them")
          ->check(not_empty());
  command
      ->add_option("--samples", options->options.samples,
                   "Rows of --calibration that are looked at")
      ->needs(calibration)
      ->check(between(1, 100000))
      ->capture_default_str();
  command
      ->add_option("--size-mb", options->options.size_mb,
                   "With --dtype int4: give layers 8 bits where it helps most, up to this size of "
                   "all weights")
      ->check(at_least(0));
  command->add_option("--output", options->output, "Folder for the checkpoint, new or empty")
      ->required()
      ->check(not_empty());
  return [options, &runtime] { return run_quantize(*options, runtime); };
}

std::function<int()> add_export(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command = app.add_subcommand(
      "export", "Write a model in the files of other programs: GGUF, for llama.cpp and its kin");
  options->source.declare(*command);
  command->add_option("--to", options->to, "Format of the files")
      ->check(CLI::IsMember({"gguf"}))
      ->capture_default_str();
  command->add_option("--type", options->type, "How the text model's matrices are stored")
      ->required()
      ->check(CLI::IsMember(gguf_export_types()));
  command->add_option("--name", options->name, "Name of the files (default: the model's)");
  command->add_option("--output", options->output, "Folder for the files")
      ->required()
      ->check(not_empty());
  return [options, &runtime] { return run_export(*options, runtime); };
}

}  // namespace

std::map<std::string, std::function<int()>> add_convert_commands(CLI::App& app,
                                                                 const RuntimeOptions& runtime) {
  return {{"export", add_export(app, runtime)}, {"quantize", add_quantize(app, runtime)}};
}

}  // namespace vlm::infer

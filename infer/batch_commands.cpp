#include "infer/batch_commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "infer/batch/batch_runner.h"
#include "infer/evaluate.h"
#include "infer/session.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostNewTokens = 1 << 20;
constexpr const char* kCaptionPrompt = "Can you describe this image?";

struct BatchCommandOptions {
  ModelChoice choice;
  std::vector<std::string> paths;
  std::vector<std::string> questions;
  std::string prompt = kCaptionPrompt;
  std::string system;
  std::int64_t max_new_tokens = 64;
  BatchOptions batch;
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

BatchItem make_item(const std::filesystem::path& path, const std::string& prompt,
                    const std::string& system) {
  return {.id = path.string(),
          .columns = {{"path", path.string()}},
          .messages = make_conversation(prompt, 1, system),
          .images = {path}};
}

// Every picture with every question, pictures first.
std::vector<BatchItem> make_items(const BatchCommandOptions& options) {
  std::vector<BatchItem> items;
  for (const auto& path : list_pictures(options.paths)) {
    if (options.questions.empty()) items.push_back(make_item(path, options.prompt, options.system));
    for (std::size_t q = 0; q < options.questions.size(); ++q) {
      BatchItem item = make_item(path, options.questions[q], options.system);
      if (options.questions.size() > 1) item.id += concat("#", q + 1);
      item.columns.emplace_back("question", options.questions[q]);
      items.push_back(std::move(item));
    }
  }
  return items;
}

// Opens the model, answers the items and tells how it went.
int answer_items(const std::vector<BatchItem>& items, const BatchCommandOptions& options,
                 const RuntimeOptions& runtime) {
  Session session = open_session(options.choice, runtime);
  BatchOptions batch = options.batch;
  batch.generation = session.generation;
  batch.generation.max_new_tokens = options.max_new_tokens;
  const BatchResult result = run_batch(*session.generator, items, batch);
  log_info(concat(result.rows, " rows written to ", batch.output.string(), ", ", result.errors,
                  " with an error", result.is_interrupted ? "; stopped, run again to go on" : ""));
  if (result.is_interrupted) return 130;
  return result.errors > 0 ? 3 : 0;
}

int run_evaluate(const BatchCommandOptions& options, const data::FolderOptions& folder,
                 const RuntimeOptions& runtime) {
  const auto dataset = data::load_datasets(options.paths, folder);
  const int code = answer_items(make_evaluation_items(*dataset), options, runtime);
  if (code != 130) print(score_rows(options.batch.output).dump() + "\n");
  return code;
}

void add_model_options(CLI::App& command, ModelChoice& choice) {
  command
      .add_option("--model", choice.model, "Model folder, or org/name in the Hugging Face cache")
      ->required();
  command.add_option("--adapter", choice.adapter, "PEFT adapter folder (default: none)");
}

// What every command that writes rows has.
void add_batch_options(CLI::App& command, BatchCommandOptions& options) {
  add_model_options(command, options.choice);
  command.add_option("--output", options.batch.output, "JSONL file; rows already there are kept")
      ->required();
  command.add_option("--max-new-tokens", options.max_new_tokens, "Longest answer in tokens")
      ->check(CLI::Range(std::int64_t{0}, kMostNewTokens))
      ->capture_default_str();
  command.add_option("--batch-size", options.batch.batch_size, "Items answered together")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option("--workers", options.batch.workers, "Threads that decode pictures ahead")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
}

CLI::App* add_picture_command(CLI::App& app, const char* name, const char* description,
                              BatchCommandOptions& options) {
  CLI::App* command = app.add_subcommand(name, description);
  command->add_option("paths", options.paths, "Pictures and folders (searched recursively)")
      ->required();
  add_batch_options(*command, options);
  command->add_option("--system", options.system, "System message (default: none)");
  return command;
}

std::function<int()> add_evaluate(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  auto folder = std::make_shared<data::FolderOptions>();
  CLI::App* command = app.add_subcommand(
      "evaluate", "Answer a data set's questions and print the share answered exactly");
  command->add_option("data", options->paths, "JSONL files and picture folders, as for finetune")
      ->required();
  add_batch_options(*command, *options);
  command
      ->add_option("--text-column", folder->text_column,
                   "Column of a folder's metadata with the answer")
      ->capture_default_str();
  command->add_option("--prompt", folder->prompt, "Question put to every picture of a folder")
      ->capture_default_str();
  return [options, folder, &runtime] { return run_evaluate(*options, *folder, runtime); };
}

std::function<int()> add_caption(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  CLI::App* command =
      add_picture_command(app, "caption", "Describe pictures, one JSONL row each", *options);
  command->add_option("--prompt", options->prompt, "What to ask for")->capture_default_str();
  return [options, &runtime] { return answer_items(make_items(*options), *options, runtime); };
}

std::function<int()> add_vqa(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  CLI::App* command =
      add_picture_command(app, "vqa", "Ask questions about pictures, one JSONL row each", *options);
  command->add_option("--question", options->questions, "Question; may be repeated")
      ->required()
      ->allow_extra_args(false);
  return [options, &runtime] { return answer_items(make_items(*options), *options, runtime); };
}

}  // namespace

std::map<std::string, std::function<int()>> add_batch_commands(CLI::App& app,
                                                               const RuntimeOptions& runtime) {
  return {{"caption", add_caption(app, runtime)},
          {"vqa", add_vqa(app, runtime)},
          {"evaluate", add_evaluate(app, runtime)}};
}

}  // namespace vlm::infer

#include "infer/commands/batch_commands.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/dataset.h"
#include "data/metrics/metric.h"
#include "infer/batch/gather.h"
#include "infer/batch/shard.h"
#include "infer/commands/answer_items.h"
#include "infer/commands/evaluate.h"
#include "infer/commands/model_flags.h"
#include "infer/tables/parquet_output.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::infer {
namespace {

constexpr const char* kCaptionPrompt = "Can you describe this image?";

struct EvaluateOptions {
  std::string text_column = data::DataOptions().text_column;
  std::string prompt = data::DataOptions().prompt;
  std::vector<std::string> metrics;
};

// The files behind patterns and names of the hub.
std::vector<data::DataFile> find_files(const BatchCommandOptions& options,
                                       const EvaluateOptions& evaluate) {
  RowOptions rows = options.rows.options();
  rows.data.text_column = evaluate.text_column;
  rows.data.prompt = evaluate.prompt;
  std::vector<data::DataFile> files;
  for (const std::string& name : options.paths) {
    const data::DataFile file{.path = name,
                              .options = rows.data,
                              .split = rows.split,
                              .config_name = rows.config_name,
                              .revision = rows.revision};
    for (data::DataFile& expanded : data::expand_data_file(file))
      files.push_back(std::move(expanded));
  }
  return files;
}

int run_evaluate(const BatchCommandOptions& options, const EvaluateOptions& evaluate,
                 const RuntimeOptions& runtime) {
  auto source = open_evaluation_entries(find_files(options, evaluate));
  const ItemListOptions list = list_options(options, *source);
  const ItemList items(std::move(source), list);
  const int code = answer_items("evaluate", items, options, runtime);
  if (code == 0 || code == 3) {
    const auto rows = rows_path(shard_output(options.log.output, choose_shard(options)));
    print_result(score_rows(rows, evaluate.metrics).dump() + "\n");
  }
  return code;
}

int run_caption(const BatchCommandOptions& options, const RuntimeOptions& runtime) {
  auto source = open_entries(options.paths, std::cin, MediaKind::kPicture, options.rows.options());
  ItemListOptions list = list_options(options, *source);
  list.has_text_files = options.output_format == "txt";
  list.prompt = kCaptionPrompt;
  list.shows_question = source->asks();
  // A prompt that was given replaces the rows' own; the default doesn't.
  if (options.prompt) list.questions = {{.id = "1", .text = *options.prompt}};
  return answer_items("caption", ItemList(std::move(source), list), options, runtime);
}

// `vqa` and `video`: plain files are of the kind.
int run_questions(const std::string& command, MediaKind kind, const BatchCommandOptions& options,
                  const RuntimeOptions& runtime) {
  auto source = open_entries(options.paths, std::cin, kind, options.rows.options());
  ItemListOptions list = list_options(options, *source);
  list.has_text_files = options.output_format == "txt";
  list.questions = load_questions(options.questions, options.questions_file);
  if (list.questions.empty() && !source->asks()) {
    throw Error({.what = "no question",
                 .hint = "give --question or --questions, or rows with "
                         "questions of their own"});
  }
  return answer_items(command, ItemList(std::move(source), list), options, runtime);
}

int run_video(const BatchCommandOptions& options, const RuntimeOptions& runtime) {
  if (options.by_segment && options.video.sampling().strategy == "times") {
    throw Error({.what = "--ground takes frames of every segment", .got = "--sampling times"});
  }
  return run_questions("video", MediaKind::kVideo, options, runtime);
}

int run_gather(const GatherOptions& options) {
  const GatherReport report = gather_shards(options);
  for (const std::string& missing : report.missing) log_warning("missing: " + missing);
  log_info(concat(report.rows, " of ", report.items, " rows, ", report.errors, " with an error",
                  report.is_written ? " gathered in " + options.output.string()
                                    : "; nothing written (--partial writes what is there)"));
  return report.missing.empty() && report.errors == 0 ? 0 : 3;
}

// What every command that writes rows has.
void add_batch_options(CLI::App& command, BatchCommandOptions& options) {
  declare_model(command, options.choice);
  command
      .add_option("--output", options.log.output,
                  "File for the rows; FILE.journal beside it knows which are done. FILE.parquet is "
                  "written at the end, from the rows in FILE.parquet.jsonl")
      ->required()
      ->check(not_empty())
      ->check([](const std::string& file) {
        return file == "-" ? std::string("rows need a file: their journal lies beside it")
                           : std::string();
      });
  command
      .add_option("--order", options.order,
                  "Rows in the order of the input, or of completion (a little sooner on the disk)")
      ->check(CLI::IsMember({"input", "completion"}))
      ->capture_default_str();
  command
      .add_option("--shard", options.shard,
                  "i/n: only part i, from 0 to n-1, into OUTPUT.shard-i-of-n (default: by the "
                  "variables of torchrun and Slurm)")
      ->check(not_empty());
  auto* restart = command.add_flag("--restart", options.log.restart,
                                   "Delete the rows that are there and begin anew");
  command
      .add_flag("--retry-errors", options.log.retry_errors, "Do items again whose row is an error")
      ->excludes(restart);
  command
      .add_flag("--allow-changes", options.log.allow_changes,
                "Go on although model, prompt or options differ from those of the rows there")
      ->excludes(restart);
  command
      .add_option("--item-timeout", options.batch.item_timeout_s,
                  "Seconds that one answer may take of the model, or a video to be read, before "
                  "its row is an error; 0: as many as it takes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  options.generation.declare(command);
  options.video.declare(command);
  declare_feature_cache(command, options.features);
  command
      .add_option("--batch-size", options.batch.batch_size,
                  "Pictures or videos answered together, with all their questions")
      ->check(between(1, 4096))
      ->capture_default_str();
  command
      .add_option("--workers", options.batch.workers,
                  "Threads that read pictures ahead, or videos decoded ahead")
      ->check(between(1, 256))
      ->capture_default_str();
}

CLI::App* add_media_command(CLI::App& app, const char* name, const char* description,
                            BatchCommandOptions& options) {
  CLI::App* command = app.add_subcommand(name, description);
  const std::string files = std::string(name) == "video" ? "Videos" : "Pictures";
  command
      ->add_option("paths", options.paths,
                   files +
                       ", folders (searched recursively), quoted globs (** too), files of rows "
                       "(.jsonl, .json, .csv, .parquet, .arrow, .tar), folders with metadata.jsonl "
                       "or metadata.csv, hf://datasets/org/name, or - for a list of paths on stdin")
      ->required()
      ->check(not_empty());
  add_batch_options(*command, options);
  options.rows.declare(*command, /*has_ids=*/true);
  command->add_option("--system", options.system, "System message (default: none)");
  command
      ->add_option("--output-format", options.output_format,
                   "jsonl, csv, parquet, openai (batch results), or txt (jsonl, and the answer in "
                   "a .txt beside each file); default: by the suffix of --output")
      ->check(CLI::IsMember({"jsonl", "csv", "openai", "txt", "parquet"}));
  command->add_flag("--overwrite", options.batch.sink.overwrites_text,
                    "With txt: replace .txt files that hold other text");
  return command;
}

std::function<int()> add_evaluate(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  auto evaluate = std::make_shared<EvaluateOptions>();
  CLI::App* command = app.add_subcommand(
      "evaluate", "Answer a data set's questions and print the share answered exactly");
  command
      ->add_option(
          "data", options->paths,
          "Data files and picture folders, patterns, hf://datasets/org/name: as for finetune")
      ->required()
      ->check(not_empty());
  add_batch_options(*command, *options);
  options->rows.declare(*command, /*has_ids=*/false);
  command->add_option("--text-column", evaluate->text_column, "Rows: the column with the answer")
      ->capture_default_str();
  command->add_option("--prompt", evaluate->prompt, "Question put to rows that have none")
      ->capture_default_str();
  command
      ->add_option("--metric", evaluate->metrics,
                   concat("Metric to print beside the accuracy; may be repeated: ",
                          join(data::metric_names()), " (default: none)"))
      ->allow_extra_args(false)
      ->check(CLI::IsMember(data::metric_names()));
  return [options, evaluate, &runtime] {
    options->output_format = is_parquet(options->log.output) ? "parquet" : "jsonl";
    return run_evaluate(*options, *evaluate, runtime);
  };
}

std::function<int()> add_caption(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  CLI::App* command =
      add_media_command(app, "caption", "Describe pictures, one row each", *options);
  command->add_option("--prompt", options->prompt,
                      concat("What to ask for, also of rows that ask something themselves; "
                             "{path}, {name}, {stem} and columns are filled in (default: the "
                             "rows' own, or '",
                             kCaptionPrompt, "')"));
  return [options, &runtime] { return run_caption(*options, runtime); };
}

void add_question_options(CLI::App& command, BatchCommandOptions& options) {
  command
      .add_option("--question", options.questions,
                  "Question put to every file, in place of the rows' own; may be repeated; "
                  "{path}, {name}, {stem} and columns are filled in")
      ->allow_extra_args(false);
  command
      .add_option("--questions", options.questions_file,
                  "JSONL file of further questions: {\"id\": …, \"question\": …} a line")
      ->check(not_empty());
}

std::function<int()> add_vqa(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  CLI::App* command =
      add_media_command(app, "vqa", "Ask questions about pictures, one row each", *options);
  add_question_options(*command, *options);
  return
      [options, &runtime] { return run_questions("vqa", MediaKind::kPicture, *options, runtime); };
}

std::function<int()> add_video(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  options->batch.batch_size = 1;  // a video's prompt is as long as that of many pictures
  CLI::App* command =
      add_media_command(app, "video", "Ask questions about videos, one row each", *options);
  add_question_options(*command, *options);
  auto* ground = command->add_flag(
      "--ground", options->by_segment,
      "Ask about each segment by itself, and rank the segments by how likely the answer is");
  options->generation.exclude_all(*command, ground);
  command->add_option("--segment-s", options->segment_s, "--ground: length of a segment in seconds")
      ->check(above(0))
      ->capture_default_str()
      ->needs(ground);
  command
      ->add_option("--answer", options->answer,
                   "--ground: the answer that counts. yes is weighed against no, an answer of "
                   "--choices against the others, any other stands by itself")
      ->capture_default_str()
      ->needs(ground);
  command
      ->add_option("--html", options->html,
                   "--ground: also write a page that shows the segments on time lines")
      ->check(not_empty())
      ->needs(ground);
  return [options, &runtime] { return run_video(*options, runtime); };
}

std::function<int()> add_gather(CLI::App& app) {
  auto options = std::make_shared<GatherOptions>();
  CLI::App* command =
      app.add_subcommand("gather", "Join the outputs of shards, in the order of the input");
  command->add_option("output", options->output, "What --output was for every shard")
      ->required()
      ->check(not_empty());
  command
      ->add_option("--shards", options->shards,
                   "How many there are (default: what their names say)")
      ->check(above(0));
  command->add_flag("--partial", options->allows_partial,
                    "Write what is there although rows are missing");
  command->add_flag("--overwrite", options->overwrites,
                    "Replace an output that holds lines which no shard has");
  return [options] { return run_gather(*options); };
}

}  // namespace

std::map<std::string, std::function<int()>> add_batch_commands(CLI::App& app,
                                                               const RuntimeOptions& runtime) {
  return {{"caption", add_caption(app, runtime)},
          {"vqa", add_vqa(app, runtime)},
          {"video", add_video(app, runtime)},
          {"evaluate", add_evaluate(app, runtime)},
          {"gather", add_gather(app)}};
}

}  // namespace vlm::infer

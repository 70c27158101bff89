#include "infer/commands/batch_commands.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/metrics/metric.h"
#include "infer/batch/batch_runner.h"
#include "infer/batch/fingerprint.h"
#include "infer/batch/gather.h"
#include "infer/batch/shard.h"
#include "infer/commands/evaluate.h"
#include "infer/commands/generation_flags.h"
#include "infer/media/media_flags.h"
#include "infer/media/seen_video.h"
#include "infer/session.h"
#include "vlm/core/bounds.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm::infer {
namespace {

constexpr const char* kCaptionPrompt = "Can you describe this image?";

struct BatchCommandOptions {
  ModelChoice choice;
  std::vector<std::string> paths;
  std::vector<std::string> questions;
  std::string questions_file;
  std::optional<std::string> prompt;  // caption's; none: the rows' own, or the default
  std::string system;
  std::string output_format, order = "input", shard;
  GenerationFlags generation{.max_new_tokens = 64};
  FeatureCacheChoice features;
  RowLogOptions log;
  BatchOptions batch;
  VideoFlags video;
  bool by_segment = false;  // the rest is of --ground
  double segment_s = 10;
  std::string answer = "yes";
};

Shard choose_shard(const BatchCommandOptions& options) {
  if (!options.shard.empty()) return parse_shard(options.shard);
  const FoundShard found = find_shard(process_environment());
  if (!found.source.empty()) {
    log_info(concat("shard ", found.shard.index, " of ", found.shard.count, ", by ", found.source));
  }
  return found.shard;
}

// The answer that segments are ranked by, and behind it what it is weighed against.
ChoiceList segment_choices(const BatchCommandOptions& options) {
  ChoiceList list = options.generation.choice_list();
  if (list.texts.empty()) {
    list.texts = {options.answer};
    if (options.answer == "yes") list.texts.emplace_back("no");
    return list;
  }
  const auto found = std::find(list.texts.begin(), list.texts.end(), options.answer);
  if (found == list.texts.end()) {
    throw Error({.what = "not one of the choices",
                 .where = "--answer",
                 .got = concat("'", options.answer, "'"),
                 .wanted = join(list.texts)});
  }
  std::rotate(list.texts.begin(), found, found + 1);
  return list;
}

ItemListOptions list_options(const BatchCommandOptions& options, const EntrySource& source) {
  ItemListOptions list{.system = options.system, .reserved = reserved_columns()};
  if (!source.shows_videos()) return list;
  if (options.by_segment) {
    list.media_columns = {"duration_s", "damaged_frames"};
    list.reserved.emplace_back("segments");
  } else {
    list.media_columns = video_column_names(options.video.given.drop_duplicates);
  }
  return list;
}

// Everything that rows depend on; journals keep it.
OrderedJson describe_run(const std::string& command, const ItemList& items,
                         const BatchCommandOptions& options, const RuntimeOptions& runtime,
                         const std::filesystem::path& model) {
  OrderedJson run;
  run["command"] = command;
  run["inputs"] = items.digest();
  run["--model"] = identify_folder(options.choice.model, model);
  if (!options.choice.adapter.empty()) {
    run["--adapter"] = identify_folder(options.choice.adapter, options.choice.adapter);
  }
  run["--dtype"] = runtime.dtype;
  run["--prompt"] = options.prompt ? OrderedJson(*options.prompt) : OrderedJson(nullptr);
  OrderedJson questions = OrderedJson::array();
  for (const Question& question : load_questions(options.questions, options.questions_file)) {
    questions.push_back({question.id, question.text});
  }
  run["--question"] = questions;
  run["--system"] = options.system;
  run.update(options.generation.describe());
  run.update(options.video.describe());
  if (options.by_segment) {
    run["--ground"] = {{"--segment-s", options.segment_s}, {"--answer", options.answer}};
  } else if (options.generation.choice_list().texts.empty()) {
    run["--seed"] = runtime.seed.value_or(0);
  }
  return run;
}

ReportOptions make_report(const BatchCommandOptions& options, const GenerationOptions& defaults) {
  const GenerationFlags& flags = options.generation;
  if (options.by_segment) {
    return {.choices = segment_choices(options),
            .abstain_below = flags.abstain_below,
            .by_segment = true};
  }
  const auto answers = flags.num_return_sequences.value_or(defaults.num_return_sequences);
  return {.choices = flags.choice_list(),
          .abstain_below = flags.abstain_below,
          .has_alternatives = answers > 1,
          .has_scores = flags.num_beams.value_or(defaults.num_beams) > 1};
}

// Answers the items that have no row yet and tells how it went.
int answer_items(const std::string& command, const ItemList& items,
                 const BatchCommandOptions& options, const RuntimeOptions& runtime) {
  const Shard shard = choose_shard(options);
  RowLogOptions log_options = options.log;
  log_options.output = shard_output(options.log.output, shard);
  const auto model = find_or_pull_model(options.choice.model);
  const RowFormat format(parse_output_format(options.output_format, log_options.output),
                         items.columns(), make_report(options, load_generation_options(model)));
  if (!options.by_segment) options.generation.check_score_is_used();
  if (options.batch.sink.overwrites_text && format.format() != OutputFormat::kTxt) {
    throw Error({.what = "there are no .txt files to overwrite",
                 .where = "--overwrite",
                 .hint = "it goes with --output-format txt"});
  }
  log_options.preamble = format.preamble();
  log_options.header = {.items = items.items(),
                        .shard_items = count_items(items, shard),
                        .shard = shard,
                        .options = describe_run(command, items, options, runtime, model)};
  log_options.header.options["--output-format"] = to_string(format.format());
  log_options.header.options["columns"] = log_options.preamble;
  RowLog log(log_options);
  const std::int64_t before = log.rows();
  if (before > 0) log_info(concat("goes on behind the ", before, " rows already there"));
  bool is_done = true;
  if (before < log.header().shard_items) {
    Session session = open_session(options.choice, runtime);
    BatchOptions batch = options.batch;
    batch.sink.in_input_order = options.order == "input";
    const Processor& processor = session.generator->processor();
    batch.generation = options.generation.apply(session.generation, runtime.seed.value_or(0),
                                                processor.tokenizer());
    batch.choices = encode_choices(processor, format.report().choices.texts);
    batch.by_mean = format.report().choices.by_mean;
    batch.video.sampling = options.video.sampling();
    if (options.by_segment) batch.video.segment_s = options.segment_s;
    session.generator->set_feature_cache(open_feature_cache(options.features, *session.model));
    is_done = run_batch(*session.generator, items, format, log, batch);
  } else if (options.order == "input") {
    log.sort();  // what a run in completion order, or one that was stopped, left
  }
  log_info(concat(log.rows() - before, " rows written to ", log_options.output.string(), ", ",
                  log.rows(), " of ", log.header().shard_items, " are there, ", log.errors(),
                  " with an error", is_done ? "" : "; stopped, run again to go on"));
  if (!is_done) return stop_exit_code();
  return log.errors() > 0 || items.has_left_out() ? 3 : 0;
}

struct EvaluateOptions {
  data::DataOptions folder;
  std::vector<std::string> metrics;
};

int run_evaluate(const BatchCommandOptions& options, const EvaluateOptions& evaluate,
                 const RuntimeOptions& runtime) {
  auto source = make_evaluation_entries(data::load_datasets(options.paths, evaluate.folder));
  const ItemListOptions list = list_options(options, *source);
  const ItemList items(std::move(source), list);
  const int code = answer_items("evaluate", items, options, runtime);
  if (code == 0 || code == 3) {
    const auto output = shard_output(options.log.output, choose_shard(options));
    print_result(score_rows(output, evaluate.metrics).dump() + "\n");
  }
  return code;
}

int run_caption(const BatchCommandOptions& options, const RuntimeOptions& runtime) {
  auto source = open_entries(options.paths, std::cin);
  ItemListOptions list = list_options(options, *source);
  list.prompt = kCaptionPrompt;
  list.shows_question = source->asks();
  // A prompt that was given replaces the rows' own; the default doesn't.
  if (options.prompt) list.questions = {{.id = "1", .text = *options.prompt}};
  return answer_items("caption", ItemList(std::move(source), list), options, runtime);
}

// `vqa` and `video`: plain files are of the kind.
int run_questions(const std::string& command, MediaKind kind, const BatchCommandOptions& options,
                  const RuntimeOptions& runtime) {
  auto source = open_entries(options.paths, std::cin, kind);
  ItemListOptions list = list_options(options, *source);
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
  command
      .add_option("--model", options.choice.model,
                  "Model folder, or org/name (in the Hugging Face cache, or pulled into it)")
      ->required()
      ->check(not_empty());
  command.add_option("--adapter", options.choice.adapter, "PEFT adapter folder (default: none)")
      ->check(not_empty());
  command
      .add_option("--output", options.log.output,
                  "File for the rows; FILE.journal beside it knows which are done")
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
  options.generation.declare(command);
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
                       ", folders (searched recursively), quoted globs (** too), .jsonl files, "
                       ".tar shards, or - for a list of paths on stdin")
      ->required()
      ->check(not_empty());
  add_batch_options(*command, options);
  command->add_option("--system", options.system, "System message (default: none)");
  command
      ->add_option("--output-format", options.output_format,
                   "jsonl, csv, openai (batch results), or txt (jsonl, and the answer in a .txt "
                   "beside each file); default: by the suffix of --output")
      ->check(CLI::IsMember({"jsonl", "csv", "openai", "txt"}));
  command->add_flag("--overwrite", options.batch.sink.overwrites_text,
                    "With txt: replace .txt files that hold other text");
  return command;
}

std::function<int()> add_evaluate(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<BatchCommandOptions>();
  options->output_format = "jsonl";
  auto evaluate = std::make_shared<EvaluateOptions>();
  data::DataOptions* folder = &evaluate->folder;
  CLI::App* command = app.add_subcommand(
      "evaluate", "Answer a data set's questions and print the share answered exactly");
  command->add_option("data", options->paths, "Data files and picture folders, as for finetune")
      ->required()
      ->check(not_empty());
  add_batch_options(*command, *options);
  command
      ->add_option("--text-column", folder->text_column,
                   "Column of a folder's metadata with the answer")
      ->capture_default_str();
  command->add_option("--prompt", folder->prompt, "Question put to every picture of a folder")
      ->capture_default_str();
  command
      ->add_option("--metric", evaluate->metrics,
                   concat("Metric to print beside the accuracy; may be repeated: ",
                          join(data::metric_names()), " (default: none)"))
      ->allow_extra_args(false)
      ->check(CLI::IsMember(data::metric_names()));
  return [options, evaluate, &runtime] { return run_evaluate(*options, *evaluate, runtime); };
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
  options->video.declare(*command);
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

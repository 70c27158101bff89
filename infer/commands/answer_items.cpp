#include "infer/commands/answer_items.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "infer/batch/fingerprint.h"
#include "infer/batch/shard.h"
#include "infer/batch/used_files.h"
#include "infer/commands/model_flags.h"
#include "infer/commands/segment_page.h"
#include "infer/media/seen_video.h"
#include "infer/structured/answer_value.h"
#include "infer/tables/parquet_output.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/hub/hub_pull.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

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
  const at::Device device = prepare_runtime(runtime);
  run["--device"] = device.is_cpu() ? "cpu" : "cuda";
  // What auto became here; on a GPU it follows from the model alone.
  const bool is_told = runtime.dtype == "auto" && device.is_cpu();
  run["--dtype"] = !is_told                                                    ? runtime.dtype
                   : compute_dtype(model, {.device = device}) == at::kBFloat16 ? "bfloat16"
                                                                               : "float32";
  if (options.choice.kv_dtype != "auto") run["--kv-dtype"] = options.choice.kv_dtype;
  run["--prompt"] = options.prompt ? OrderedJson(*options.prompt) : OrderedJson(nullptr);
  OrderedJson questions = OrderedJson::array();
  for (const Question& question : load_questions(options.questions, options.questions_file)) {
    questions.push_back({question.id, question.text});
    if (!question.overrides.is_null()) questions.back().push_back(question.overrides);
  }
  run["--question"] = questions;
  run["--system"] = options.system;
  run.update(describe_chat(options.choice.chat));
  run.update(options.rows.options().describe());
  run.update(options.generation.describe());
  run.update(options.video.describe());
  if (options.by_segment) {
    run["--ground"] = {{"--segment-s", options.segment_s}, {"--answer", options.answer}};
  } else if (options.generation.choice_list().texts.empty()) {
    run["--seed"] = runtime.seed.value_or(0);
  }
  return run;
}

// Whether answers may have to be JSON, and which of their members are columns of a table.
void add_json_columns(const GenerationFlags& flags, bool has_rules, bool is_table,
                      AnswerReportOptions& report) {
  const auto rule = flags.rule();
  report.has_json = has_rules || (rule && rule->is_json());
  if (rule && is_table) report.json_columns = property_names(*rule);
}

AnswerReportOptions make_report(const BatchCommandOptions& options,
                                const GenerationOptions& defaults) {
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
          .has_scores = flags.num_beams.value_or(defaults.num_beams) > 1,
          .format = flags.format()};
}

// Columns that rows get from their videos.
std::vector<std::string> media_columns(const BatchCommandOptions& options) {
  if (options.by_segment) return {"duration_s", "damaged_frames"};
  return video_column_names(options.video.given.drop_duplicates);
}

// A row with a value of each column's kind; null for the input's columns, whose values tell.
OrderedJson example_row(const ItemList& items, const BatchCommandOptions& options,
                        const AnswerReportOptions& report) {
  OrderedJson row = {{"id", ""}};
  for (const std::string& name : items.columns()) row[name] = nullptr;
  for (const char* name : {"path", "question"}) {
    if (row.contains(name)) row[name] = "";
  }
  if (items.shows_videos()) {
    const OrderedJson seen = video_columns({{.times_s = {0}}}, /*has_dropped=*/true);
    for (const std::string& name : media_columns(options)) row[name] = seen[name];
  }
  row.update(example_report(report));
  row["error"] = "";
  return row;
}

// The table that a run with this journal ends with, where it writes one.
std::optional<ParquetOutput> open_table(const std::filesystem::path& output,
                                        const OrderedJson& options) {
  if (!is_parquet(output)) return std::nullopt;
  return ParquetOutput({.output = resolve_output(output),
                        .columns = OrderedJson::parse(options["columns"].get<std::string>()),
                        .notes = table_notes(options)});
}

// Throws Error when a table is there that the rows of the log aren't of.
void check_table(const ParquetOutput& table, const RowLog& log, bool restart) {
  const bool goes_on = std::filesystem::exists(journal_path(log.output()));
  if (restart) return;
  table.check_replaced(goes_on ? kRunNote : "",
                       "choose another --output, or --restart to replace it");
}

void write_table(const ParquetOutput& table, RowLog& log, const std::filesystem::path& output) {
  table.write([&](const auto& use) {
    log.for_each_row([&](std::int64_t, const std::string& row) { use(row); });
  });
  log_info("wrote " + output.string());
}

// Of all rows, those of earlier runs among them.
void write_segment_page(RowLog& log, const std::string& path) {
  SegmentPage page;
  log.for_each_row(
      [&](std::int64_t, const std::string& row) { page.add(OrderedJson::parse(row)); });
  save_text(path, page.text());
  log_info("wrote " + path);
}

void check_segment_page(const std::string& path, const std::filesystem::path& output,
                        OutputFormat format, const UsedFiles& used) {
  if (path.empty()) return;
  used.check_file(path);
  const auto files = files_of_output(resolve_output(output));
  if (std::find(files.begin(), files.end(), resolve_output(path)) != files.end()) {
    throw Error({.what = "the page would replace the rows", .where = "--html", .got = path});
  }
  if (format == OutputFormat::kJsonl || format == OutputFormat::kParquet) return;
  throw Error({.what = "the page of segments is made from rows of JSON",
               .where = "--html",
               .got = concat("--output-format ", to_string(format)),
               .wanted = "jsonl or parquet"});
}

// Throws Error when rows would go over something that the run reads. Pictures are looked at only
// where that can happen: not for a new output, nor for rows that a journal vouches for.
std::shared_ptr<const UsedFiles> check_output(const RowLogOptions& log, const ItemList& items,
                                              const BatchCommandOptions& options,
                                              const std::filesystem::path& model,
                                              const std::optional<ParquetOutput>& table) {
  auto used = std::make_shared<UsedFiles>();
  const bool replaces_texts = options.output_format == "txt" && options.batch.sink.overwrites_text;
  const auto output = resolve_output(log.output);
  auto files = files_of_output(output);
  const auto table_files = table ? table->files() : std::vector<std::filesystem::path>{};
  files.insert(files.end(), table_files.begin(), table_files.end());
  const bool is_new = std::none_of(files.begin(), files.end(),
                                   [](const auto& file) { return std::filesystem::exists(file); });
  const bool goes_on = std::filesystem::exists(journal_path(output)) && !log.restart;
  const bool replaces_page = !options.html.empty() && std::filesystem::exists(options.html);
  items.for_each_file(replaces_texts || replaces_page || (!is_new && !goes_on),
                      [&](const std::string& file) { used->add(file, "an input"); });
  for (const std::string& file : options.generation.files()) {
    used->add(file, "a file that the command line names");
  }
  if (!options.questions_file.empty()) {
    used->add(options.questions_file, "a file that the command line names");
  }
  used->add_folder(model, "a file of the model");
  if (!options.choice.adapter.empty()) {
    used->add_folder(options.choice.adapter, "a file of the adapter");
  }
  const std::string& cache = options.features.folder;
  if (cache != "auto" && cache != "off") used->add_folder(cache, "a file of the feature cache");
  used->add_standard_streams();
  used->check_output(output);
  for (const auto& file : table_files) used->check_file(file);
  return used;
}

BatchOptions batch_options(const BatchCommandOptions& options, const RuntimeOptions& runtime,
                           const Session& session, const AnswerReportOptions& report) {
  BatchOptions batch = options.batch;
  const Processor& processor = session.generator->processor();
  batch.generation =
      options.generation.apply(session.generation, runtime.seed.value_or(0), processor.tokenizer());
  batch.rules = session.rules;
  if (const auto rule = options.generation.rule()) {
    batch.generation.grammar = session.rules->compile(*rule, options.generation.rule_option());
  }
  batch.choices = encode_choices(processor, report.choices.texts);
  batch.by_mean = report.choices.by_mean;
  batch.video.sampling = options.video.sampling();
  if (options.by_segment) batch.video.segment_s = options.segment_s;
  batch.should_stop = stop_requested;
  return batch;
}

}  // namespace

Shard choose_shard(const BatchCommandOptions& options) {
  if (!options.shard.empty()) return parse_shard(options.shard);
  const FoundShard found = find_shard(process_environment());
  if (!found.source.empty()) {
    log_info(concat("shard ", found.shard.index, " of ", found.shard.count, ", by ", found.source));
  }
  return found.shard;
}

ItemListOptions list_options(const BatchCommandOptions& options, const EntrySource& source) {
  AnswerReportOptions report;
  const auto questions = load_questions(options.questions, options.questions_file);
  const bool has_rules =
      source.has_rules() || std::any_of(questions.begin(), questions.end(),
                                        [](const auto& one) { return !one.overrides.is_null(); });
  add_json_columns(options.generation, has_rules, /*is_table=*/true, report);
  ItemListOptions list{.system = options.system, .reserved = reserved_columns(report)};
  if (!source.shows_videos()) return list;
  list.media_columns = media_columns(options);
  if (options.by_segment) list.reserved.emplace_back("segments");
  return list;
}

int answer_items(const std::string& command, const ItemList& items,
                 const BatchCommandOptions& options, const RuntimeOptions& runtime) {
  const Shard shard = choose_shard(options);
  RowLogOptions log_options = options.log;
  const auto output = shard_output(options.log.output, shard);
  if (is_parquet(output)) check_parquet_is_written();  // before a model is pulled
  log_options.output = rows_path(output);
  const auto model = find_or_pull_model(options.choice.model);
  const OutputFormat output_format = parse_output_format(options.output_format, output);
  AnswerReportOptions report = make_report(options, load_generation_options(model));
  add_json_columns(options.generation, items.has_rules(),
                   output_format == OutputFormat::kCsv || output_format == OutputFormat::kParquet,
                   report);
  const RowFormat format(output_format, items.columns(), std::move(report));
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
  log_options.header.options["columns"] = is_parquet(output)
                                              ? example_row(items, options, format.report()).dump()
                                              : log_options.preamble;
  const auto table = open_table(output, log_options.header.options);
  RowSinkOptions sink = options.batch.sink;
  sink.in_input_order = options.order == "input";
  sink.used = check_output(log_options, items, options, model, table);
  check_segment_page(options.html, log_options.output, format.format(), *sink.used);
  RowLog log(log_options);
  if (table) check_table(*table, log, log_options.restart);
  const std::int64_t before = log.rows();
  bool is_done = before == log.header().shard_items;
  // Loaded before anything is made: a model that doesn't load leaves no trace of the run.
  std::optional<Session> session;
  if (!is_done) session = open_session(options.choice, runtime);
  const bool shows_media = command == "caption" || command == "video";
  if (session && shows_media && !session->generator->processor().takes_media()) {
    throw Error({.what = "the model takes no pictures and no videos",
                 .where = model.string(),
                 .got = command,
                 .hint = "it is a model of text alone: vlm generate, or vlm evaluate"});
  }
  BatchOptions batch;
  if (session) {
    batch = batch_options(options, runtime, *session, format.report());
    batch.sink = sink;
    session->generator->set_feature_cache(open_feature_cache(options.features, *session->model));
  }
  log.begin();
  if (before > 0) log_info(concat("goes on behind the ", before, " rows already there"));
  if (format.format() == OutputFormat::kTxt) RowSink(log, format, sink).restore_text_files(items);
  if (session) {
    is_done = run_batch(*session->generator, items, format, log, batch);
  } else if (sink.in_input_order) {
    log.sort();  // what a run in completion order, or one that was stopped, left
  }
  log_info(concat(log.rows() - before, " rows written to ", log_options.output.string(), ", ",
                  log.rows(), " of ", log.header().shard_items, " are there, ", log.errors(),
                  " with an error", is_done ? "" : "; stopped, run again to go on"));
  if (!is_done) return stop_exit_code();
  if (table) write_table(*table, log, output);
  if (!options.html.empty()) write_segment_page(log, options.html);
  return log.errors() > 0 || items.has_left_out() ? 3 : 0;
}

}  // namespace vlm::infer

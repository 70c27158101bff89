#include "infer/commands/commands.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "infer/answer_report.h"
#include "infer/answer_text.h"
#include "infer/commands/batch_commands.h"
#include "infer/commands/generation_flags.h"
#include "infer/commands/inspect.h"
#include "infer/commands/model_flags.h"
#include "infer/commands/pull_command.h"
#include "infer/items/item.h"
#include "infer/media/inspect_video.h"
#include "infer/media/media_flags.h"
#include "infer/media/shown_media.h"
#include "infer/session.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::infer {
namespace {

struct GenerateOptions {
  ModelChoice choice;
  std::vector<std::string> images, videos;
  std::vector<MediaRef> media;  // of both, as the command line orders them
  VideoFlags video;
  FeatureCacheChoice features;
  std::string prompt, system;
  GenerationFlags generation;
  std::string format = "text";
};

// --image and --video in the order in which they were given.
std::vector<MediaRef> order_media(const CLI::App& command, const GenerateOptions& options) {
  std::vector<MediaRef> media;
  std::size_t images = 0, videos = 0;
  for (const CLI::Option* option : command.parse_order()) {
    if (option->check_name("--image")) {
      media.push_back({.name = options.images.at(images++)});
    } else if (option->check_name("--video")) {
      media.push_back({.kind = MediaKind::kVideo, .name = options.videos.at(videos++)});
    }
  }
  return media;
}

OrderedJson to_json(const RequestAnswer& answer, const AnswerReportOptions& report,
                    const Session& session) {
  const GenerationTiming& timing = session.generator->timing();
  OrderedJson json = report_answer(answer, report);
  if (!answer.generations.empty()) {
    json["token_ids"] = answer.generations[0].ids;
    json["token_logprobs"] = answer.generations[0].logprobs;
  }
  json["timing"] = {{"load_s", session.load_s},
                    {"vision_s", timing.vision_s},
                    {"prefill_s", timing.prefill_s},
                    {"decode_s", timing.decode_s},
                    {"decode_tokens_per_s", timing.decode_tokens_per_s()}};
  if (timing.guessed_tokens > 0) {
    json["timing"]["guessed_tokens"] = timing.guessed_tokens;
    json["timing"]["right_guesses"] = timing.right_guesses;
  }
  json["peak_rss_mb"] = peak_rss_mb();
  return json;
}

// One line an answer, the best first.
std::string to_text(const RequestAnswer& answer, const AnswerReportOptions& report) {
  const auto text = shown_text(answer, report);
  std::string lines = text.value_or("(withheld)") + "\n";
  for (std::size_t i = 1; i < answer.generations.size(); ++i) {
    lines += convert_answer(answer.generations[i].text, report.format) + "\n";
  }
  return lines;
}

int run_generate(const GenerateOptions& options, const RuntimeOptions& runtime) {
  options.generation.check_score_is_used();
  Session session = open_session(options.choice, runtime);
  Generator& generator = *session.generator;
  const Processor& processor = generator.processor();
  GenerationOptions generation =
      options.generation.apply(session.generation, runtime.seed.value_or(0), processor.tokenizer());
  const auto rule = options.generation.rule();
  if (rule) generation.grammar = session.rules->compile(*rule, options.generation.rule_option());
  const AnswerReportOptions report{.choices = options.generation.choice_list(),
                                   .abstain_below = options.generation.abstain_below,
                                   .has_alternatives = generation.num_return_sequences > 1,
                                   .has_scores = generation.num_beams > 1,
                                   .format = options.generation.format(),
                                   .has_json = rule && rule->is_json()};
  if (!options.videos.empty()) {
    generator.set_feature_cache(open_feature_cache(options.features, *session.model));
  }
  ShownMedia media(processor, generator.encoder());
  for (const MediaRef& medium : options.media) media.add(medium, {options.video.sampling()});
  if (media.has_videos() && !generator.read(media, {.should_stop = stop_requested})) {
    return stop_exit_code();
  }
  const EncodedConversation prompt = processor.encode_prompt(
      make_conversation(options.prompt, options.media, options.system), media.processed());

  // Streamed is what can't change or be withheld any more.
  const bool as_text = options.format == "text";
  const bool streams = as_text && generation.rows() == 1 && report.choices.texts.empty() &&
                       !options.generation.abstain_below && !converts(report.format);
  AnswerStream stream(processor.tokenizer(), generation);
  Request request{.prompt = prompt.ids, .layout = prompt.layout, .options = generation};
  request.choices = encode_choices(processor, report.choices.texts);
  request.on_step = [&, told = std::size_t{0}](std::span<const Hypothesis> answers) mutable {
    while (streams && told < answers[0].ids.size()) {
      print_result(stream.add(answers[0].ids[told++]));
    }
    return !stop_requested();
  };
  RequestGroup group{.pictures = media.features()};
  group.requests.push_back(std::move(request));
  const RequestAnswer answer = generator.answer(std::move(group));
  if (!as_text) {
    OrderedJson json = to_json(answer, report, session);
    json["prompt_token_ids"] = prompt.ids;
    if (media.has_videos()) {
      json.update(video_columns(media.seen(), options.video.given.drop_duplicates));
    }
    print_result(json.dump() + "\n");
  } else if (streams) {
    print_result(stream.finish() + "\n");
  } else {
    print_result(to_text(answer, report));
  }
  const std::string fault = answer_fault(answer);
  if (as_text && !fault.empty()) log_warning(fault);
  const bool is_interrupted =
      !answer.generations.empty() && answer.generations[0].finish_reason == "interrupted";
  return is_interrupted ? stop_exit_code() : 0;
}

// --format text or json, and --json for short.
void add_format(CLI::App& command, std::string& format, const std::string& meaning) {
  CLI::Option* option = command.add_option("--format", format, meaning)
                            ->check(CLI::IsMember({"text", "json"}))
                            ->capture_default_str();
  command.add_flag("--json{json}", format, "The same as --format json")->excludes(option);
}

std::function<int()> add_generate(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command =
      app.add_subcommand("generate", "Answer one prompt, about pictures, videos or nothing");
  declare_model(*command, options->choice);
  command->add_option("--image", options->images, "Picture, put before the text; may be repeated")
      ->allow_extra_args(false)
      ->check(not_empty());
  CLI::Option* video =
      command
          ->add_option(
              "--video", options->videos,
              "Video, put before the text; may be repeated and mixed with --image, in the order "
              "given; - is standard input")
          ->allow_extra_args(false)
          ->check(not_empty());
  options->video.declare(*command, video);
  command->add_option("--prompt", options->prompt, "What to ask")->required();
  command->add_option("--system", options->system, "System message (default: none)");
  options->generation.declare(*command);
  add_format(*command, options->format, "text streams the answer, json prints one line");
  declare_feature_cache(*command, options->features);
  for (const char* name : {"--feature-cache", "--feature-cache-gb"}) {
    command->get_option(name)->needs(video);  // a single picture is encoded sooner than looked up
  }
  return [options, command, &runtime] {
    options->media = order_media(*command, *options);
    return run_generate(*options, runtime);
  };
}

struct InspectOptions {
  std::string what;
  VideoFlags video;
  std::string format = "text";
};

int run_inspect(const InspectOptions& options) {
  const bool is_video = options.what == "-" || (std::filesystem::exists(options.what) &&
                                                !std::filesystem::is_directory(options.what));
  if (!is_video && !options.video.describe().empty()) {
    throw Error({.what = "not a video file",
                 .where = options.what,
                 .hint = concat(options.video.describe().begin().key(), " is for those alone")});
  }
  const OrderedJson report = is_video ? inspect_video(options.what, options.video.sampling())
                                      : inspect_model(options.what);
  print_result(options.format == "json" ? report.dump() + "\n" : to_lines(report));
  return 0;
}

std::function<int()> add_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect",
                         "Print a model's architecture, parameters and memory needs, or what a "
                         "video file holds, which "
                         "frames of it would be shown, and how long they take to read");
  command
      ->add_option("model", options->what,
                   "Model folder, or org/name (in the Hugging Face cache, or pulled into it), or a "
                   "video file; - is a video on standard input")
      ->required()
      ->check(not_empty());
  add_format(*command, options->format, "text prints a line a field, json one line");
  options->video.declare(*command);
  return [options] { return run_inspect(*options); };
}

}  // namespace

std::map<std::string, std::function<int()>> add_commands(CLI::App& app,
                                                         const RuntimeOptions& runtime) {
  std::map<std::string, std::function<int()>> commands;
  commands["generate"] = add_generate(app, runtime);
  commands.merge(add_batch_commands(app, runtime));
  commands["inspect"] = add_inspect(app);
  commands["pull"] = add_pull(app);
  return commands;
}

}  // namespace vlm::infer

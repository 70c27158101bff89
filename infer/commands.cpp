#include "infer/commands.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/media.h"
#include "infer/answer_report.h"
#include "infer/batch_commands.h"
#include "infer/generation_flags.h"
#include "infer/inspect.h"
#include "infer/items/item.h"
#include "infer/pull_command.h"
#include "infer/session.h"
#include "vlm/core/json.h"
#include "vlm/core/progress.h"

namespace vlm::infer {
namespace {

struct GenerateOptions {
  ModelChoice choice;
  std::vector<std::string> images;
  std::string prompt, system;
  GenerationFlags generation;
  std::string format = "text";
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

OrderedJson to_json(const Answer& answer, const ReportOptions& report, const Session& session) {
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
  json["peak_rss_mb"] = peak_rss_mb();
  return json;
}

// One line an answer, the best first.
std::string to_text(const Answer& answer, const ReportOptions& report) {
  const auto text = shown_text(answer, report);
  std::string lines = text.value_or("(withheld)") + "\n";
  for (std::size_t i = 1; i < answer.generations.size(); ++i) {
    lines += answer.generations[i].text + "\n";
  }
  return lines;
}

int run_generate(const GenerateOptions& options, const RuntimeOptions& runtime) {
  Session session = open_session(options.choice, runtime);
  Generator& generator = *session.generator;
  const Processor& processor = generator.processor();
  const GenerationOptions generation =
      options.generation.apply(session.generation, runtime.seed.value_or(0), processor.tokenizer());
  const ReportOptions report{.choices = options.generation.choice_list(),
                             .abstain_below = options.generation.abstain_below,
                             .has_alternatives = generation.num_return_sequences > 1,
                             .has_scores = generation.num_beams > 1};
  std::vector<Image> images;
  for (const std::string& path : options.images) images.push_back(data::load_image(path));
  const EncodedConversation prompt = processor.encode_prompt(
      make_conversation(options.prompt, images.size(), options.system), images);

  // Streamed is what can't change or be withheld any more.
  const bool as_text = options.format == "text";
  const bool streams = as_text && generation.rows() == 1 && report.choices.texts.empty() &&
                       !options.generation.abstain_below;
  StreamDecoder stream(processor.tokenizer(), /*skip_special_tokens=*/true);
  Request request{.prompt = prompt.ids, .options = generation};
  request.choices = encode_choices(processor, report.choices.texts);
  request.on_token = [&](std::int64_t id) {
    if (streams) print(stream.add(id));
    return !stop_requested();
  };
  const Answer answer = generator.answer(std::move(request), prompt.pixel_values);
  if (!as_text) {
    OrderedJson json = to_json(answer, report, session);
    json["prompt_token_ids"] = prompt.ids;
    print(json.dump() + "\n");
  } else if (streams) {
    print(stream.finish() + "\n");
  } else {
    print(to_text(answer, report));
  }
  const bool is_interrupted =
      !answer.generations.empty() && answer.generations[0].finish_reason == "interrupted";
  return is_interrupted ? stop_exit_code() : 0;
}

void add_model_options(CLI::App& command, ModelChoice& choice) {
  command
      .add_option("--model", choice.model,
                  "Model folder, or org/name (in the Hugging Face cache, or pulled into it)")
      ->required();
  command.add_option("--adapter", choice.adapter, "PEFT adapter folder (default: none)");
}

std::function<int()> add_generate(CLI::App& app, const RuntimeOptions& runtime) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Answer one prompt, about pictures or none");
  add_model_options(*command, options->choice);
  command->add_option("--image", options->images, "Picture, put before the text; may be repeated")
      ->allow_extra_args(false);
  command->add_option("--prompt", options->prompt, "What to ask")->required();
  command->add_option("--system", options->system, "System message (default: none)");
  options->generation.declare(*command);
  command->add_option("--format", options->format, "text streams the answer, json prints one line")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  return [options, &runtime] { return run_generate(*options, runtime); };
}

std::function<int()> add_inspect(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("inspect", "Print a model's architecture, parameters and memory needs");
  command
      ->add_option("model", *model,
                   "Model folder, or org/name (in the Hugging Face cache, or pulled into it)")
      ->required();
  return [model] {
    print(inspect_model(*model));
    return 0;
  };
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

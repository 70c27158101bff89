#include "infer/commands.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/media.h"
#include "infer/batch_commands.h"
#include "infer/inspect.h"
#include "infer/items/item.h"
#include "infer/pull_command.h"
#include "infer/session.h"
#include "vlm/core/json.h"
#include "vlm/core/progress.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostNewTokens = 1 << 20;

struct GenerateOptions {
  ModelChoice choice;
  std::vector<std::string> images;
  std::string prompt, system;
  std::int64_t max_new_tokens = 128;
  std::string format = "text";
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

OrderedJson to_json(const Generation& answer, const EncodedConversation& prompt,
                    const Session& session) {
  const GenerationTiming& timing = session.generator->timing();
  OrderedJson json;
  json["text"] = answer.text;
  json["token_ids"] = answer.ids;
  json["token_logprobs"] = answer.logprobs;
  json["prompt_token_ids"] = prompt.ids;
  json["finish_reason"] = answer.finish_reason;
  json["timing"] = {{"load_s", session.load_s},
                    {"vision_s", timing.vision_s},
                    {"prefill_s", timing.prefill_s},
                    {"decode_s", timing.decode_s},
                    {"decode_tokens_per_s", timing.decode_tokens_per_s()}};
  json["peak_rss_mb"] = peak_rss_mb();
  return json;
}

int run_generate(const GenerateOptions& options, const RuntimeOptions& runtime) {
  Session session = open_session(options.choice, runtime);
  session.generation.max_new_tokens = options.max_new_tokens;
  Generator& generator = *session.generator;
  std::vector<Image> images;
  for (const std::string& path : options.images) images.push_back(data::load_image(path));
  const EncodedConversation prompt = generator.processor().encode_prompt(
      make_conversation(options.prompt, images.size(), options.system), images);

  const bool as_text = options.format == "text";
  StreamDecoder stream(generator.processor().tokenizer(), /*skip_special_tokens=*/true);
  const auto on_token = [&](std::size_t, std::int64_t id) {
    if (as_text) print(stream.add(id));
    return !stop_requested();
  };
  const Generation answer = generator.generate({prompt}, session.generation, on_token)[0];
  if (as_text) {
    print(stream.finish() + "\n");
  } else {
    print(to_json(answer, prompt, session).dump() + "\n");
  }
  return answer.finish_reason == "interrupted" ? 130 : 0;
}

void add_model_options(CLI::App& command, ModelChoice& choice) {
  command
      .add_option("--model", choice.model, "Model folder, or org/name in the Hugging Face cache")
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
  command->add_option("--max-new-tokens", options->max_new_tokens, "Longest answer in tokens")
      ->check(CLI::Range(std::int64_t{0}, kMostNewTokens))
      ->capture_default_str();
  command->add_option("--format", options->format, "text streams the answer, json prints one line")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  return [options, &runtime] { return run_generate(*options, runtime); };
}

std::function<int()> add_inspect(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("inspect", "Print a model's architecture, parameters and memory needs");
  command->add_option("model", *model, "Model folder, or org/name in the Hugging Face cache")
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

#include "infer/commands/generation_flags.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostNewTokens = 1 << 20;

// Options that change nothing where given answers are scored. (A longest answer does no harm.)
constexpr const char* kGenerating[] = {"--min-new-tokens",
                                       "--stop",
                                       "--keep-special-tokens",
                                       "--answer-format",
                                       "--do-sample",
                                       "--no-do-sample",
                                       "--temperature",
                                       "--top-k",
                                       "--top-p",
                                       "--min-p",
                                       "--typical-p",
                                       "--bad-words",
                                       "--repetition-penalty",
                                       "--no-repeat-ngram-size",
                                       "--num-beams",
                                       "--length-penalty",
                                       "--early-stopping",
                                       "--num-return-sequences",
                                       "--prompt-lookup",
                                       "--json-schema",
                                       "--json-object",
                                       "--regex",
                                       "--grammar"};

template <typename T>
void override_with(T& target, const std::optional<T>& given) {
  if (given) target = *given;
}

// A banned word, as it is written at the start of a text and behind a space.
void add_bad_word(const std::string& word, const Tokenizer& tokenizer,
                  std::vector<std::vector<std::int64_t>>& banned) {
  for (const std::string& text : {word, " " + word}) {
    std::vector<std::int64_t> ids = tokenizer.encode(text);
    if (ids.empty()) throw Error({.what = "no token spells the word", .where = "--bad-words"});
    if (std::find(banned.begin(), banned.end(), ids) == banned.end()) {
      banned.push_back(std::move(ids));
    }
  }
}

// A schema in the argument itself begins with a brace; a grammar is always a file.
bool is_inline_schema(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  return begin != std::string::npos && text[begin] == '{';
}

// What answers must look like. One of these alone, and none that shows or ends answers otherwise.
void declare_rules(CLI::App& command, GenerationFlags& flags) {
  CLI::Option* options[] = {
      command
          .add_option("--json-schema", flags.json_schema,
                      "Answers are JSON that satisfies this schema: a file, or the schema itself "
                      "(default: none)")
          ->check(not_empty()),
      command.add_flag("--json-object", flags.json_object, "Answers are JSON objects"),
      command
          .add_option("--regex", flags.regex,
                      "Answers match this pattern as a whole (default: none)")
          ->check(not_empty()),
      command
          .add_option("--grammar", flags.grammar,
                      "Answers follow this grammar: a file in XGrammar's EBNF (default: none)")
          ->check(not_empty())};
  for (CLI::Option* one : options) {
    for (CLI::Option* other : options) {
      if (one != other) one->excludes(other);
    }
    for (const char* name : {"--stop", "--answer-format", "--keep-special-tokens"}) {
      one->excludes(command.get_option(name));
    }
  }
}

}  // namespace

void GenerationFlags::exclude_all(CLI::App& command, CLI::Option* scoring) {
  for (const char* name : kGenerating) command.get_option(name)->excludes(scoring);
}

void GenerationFlags::declare(CLI::App& command) {
  command.add_option("--max-new-tokens", max_new_tokens, "Longest answer in tokens")
      ->check(between(0, kMostNewTokens))
      ->capture_default_str();
  command.add_option("--min-new-tokens", min_new_tokens, "Shortest answer in tokens (default: 0)");
  command.add_option("--stop", stop, "Text that ends the answer; may be repeated (default: none)")
      ->allow_extra_args(false);

  command.add_flag(
      "--keep-special-tokens", keep_special_tokens,
      "Leave special tokens in the answers, as DocTags are; not the one that ends one");
  command
      .add_option("--answer-format", answer_format,
                  "Show answers of document models as they are (doctags), as markdown or as html; "
                  "all three keep special tokens")
      ->check(CLI::IsMember({"text", "doctags", "markdown", "html"}))
      ->capture_default_str();

  declare_rules(command, *this);

  auto* sample = command.add_flag(
      "--do-sample", do_sample,
      "Draw tokens instead of taking the likeliest; any option of sampling turns it on");
  command.add_flag("--no-do-sample", no_do_sample, "Take the likeliest, whatever the checkpoint's")
      ->excludes(sample);
  command.add_option("--temperature", temperature, "Sampling: divides the logits; 0: no sampling");
  command.add_option("--top-k", top_k, "Sampling: among the k likeliest; 0: all (default: 50)");
  command.add_option("--top-p", top_p, "Sampling: among the likeliest that add up to p");
  command.add_option("--min-p", min_p, "Sampling: among those at least p times the likeliest");
  command.add_option("--typical-p", typical_p, "Sampling: among the most typical that add up to p");

  command.add_option("--repetition-penalty", repetition_penalty,
                     "Above 1 makes tokens that are there already less likely (default: 1)");
  command.add_option("--no-repeat-ngram-size", no_repeat_ngram_size,
                     "No run of so many tokens occurs twice (default: 0, off)");
  command
      .add_option("--bad-words", bad_words,
                  "Word never to be said; may be repeated (default: none)")
      ->allow_extra_args(false);

  command.add_option("--num-beams", num_beams, "Beams of beam search (default: 1, none)");
  command.add_option("--length-penalty", length_penalty,
                     "Beam search: scores are divided by length to this power (default: 1)");
  command
      .add_option("--early-stopping", early_stopping,
                  "Beam search: true ends with num-beams answers, false when better ones are "
                  "unlikely, never when none can be (default: false)")
      ->check(CLI::IsMember({"true", "false", "never"}));
  command.add_option(
      "--prompt-lookup", prompt_lookup,
      "Guess so many next tokens from the prompt and earlier answers, and check them "
      "in one pass; the answers stay the same (default: 0, off; at most 15)");
  command.add_option("--num-return-sequences", num_return_sequences,
                     "Answers a prompt, by beams or sampling (default: 1)");

  auto* list = command
                   .add_option("--choices", choices,
                               "Score these answers, divided by commas, and generate nothing")
                   ->delimiter(',');
  auto* file = command
                   .add_option("--choices-file", choices_file,
                               "The same, one answer a line, or a JSON array of strings")
                   ->check(not_empty())
                   ->excludes(list);
  exclude_all(command, list);
  exclude_all(command, file);
  command
      .add_option("--choice-score", choice_score,
                  "What ranks choices: the sum of their log-probabilities, or the mean a token "
                  "(default: sum)")
      ->check(CLI::IsMember({"sum", "mean"}));
  command
      .add_option("--abstain-below", abstain_below,
                  "Withhold answers less sure than this, from 0 to 1: the mean probability a token "
                  "(geometric), or the best choice's probability (default: none)")
      ->check(between(0, 1));
}

GenerationOptions GenerationFlags::apply(GenerationOptions options, std::uint64_t seed,
                                         const Tokenizer& tokenizer) const {
  options.max_new_tokens = max_new_tokens;
  options.seed = seed;
  options.keep_special_tokens = keep_special_tokens || format() != AnswerFormat::kText;
  override_with(options.min_new_tokens, min_new_tokens);
  override_with(options.no_repeat_ngram_size, no_repeat_ngram_size);
  override_with(options.num_beams, num_beams);
  override_with(options.num_return_sequences, num_return_sequences);
  override_with(options.prompt_lookup_num_tokens, prompt_lookup);
  override_with(options.repetition_penalty, repetition_penalty);
  override_with(options.length_penalty, length_penalty);
  if (!early_stopping.empty()) options.early_stopping = early_stopping;
  for (const std::string& text : stop) options.stop_strings.push_back(text);
  for (const std::string& word : bad_words) add_bad_word(word, tokenizer, options.bad_words_ids);

  override_with(options.temperature, temperature);
  override_with(options.top_k, top_k);
  override_with(options.top_p, top_p);
  if (min_p) options.min_p = min_p;
  override_with(options.typical_p, typical_p);
  if (temperature || top_k || top_p || min_p || typical_p) options.do_sample = true;
  if (do_sample) options.do_sample = true;
  if (no_do_sample || (temperature && *temperature == 0)) options.do_sample = false;
  if (options.temperature == 0) options.temperature = 1;
  if (options.num_beams == 1 && (length_penalty || !early_stopping.empty())) {
    throw Error({.what = "has no effect without beams",
                 .where = length_penalty ? "--length-penalty" : "--early-stopping",
                 .hint = "give --num-beams"});
  }
  if (prompt_lookup.value_or(0) > 0 && options.rows() > 1) {
    throw Error({.what = "has no effect on beams and several answers",
                 .where = "--prompt-lookup",
                 .hint = "it guesses the tokens of one answer"});
  }
  options.validate("the command line");
  return options;
}

std::string GenerationFlags::rule_option() const {
  if (!json_schema.empty()) return "--json-schema";
  if (json_object) return "--json-object";
  if (!regex.empty()) return "--regex";
  return grammar.empty() ? "" : "--grammar";
}

std::optional<AnswerRule> GenerationFlags::rule() const {
  using Kind = AnswerRule::Kind;
  if (!json_schema.empty()) {
    const OrderedJson schema = is_inline_schema(json_schema)
                                   ? parse_ordered_json(json_schema, "--json-schema")
                                   : load_ordered_json(json_schema);
    return AnswerRule{.kind = Kind::kJsonSchema, .text = schema.dump()};
  }
  if (json_object) return AnswerRule{.kind = Kind::kJsonObject};
  if (!regex.empty()) return AnswerRule{.kind = Kind::kRegex, .text = regex};
  if (grammar.empty()) return std::nullopt;
  return AnswerRule{.kind = Kind::kGrammar, .text = load_plain_text(grammar)};
}

std::vector<std::string> GenerationFlags::files() const {
  std::vector<std::string> named;
  for (const std::string& file :
       {choices_file, grammar, is_inline_schema(json_schema) ? "" : json_schema}) {
    if (!file.empty()) named.push_back(file);
  }
  return named;
}

AnswerFormat GenerationFlags::format() const {
  return parse_answer_format(answer_format);
}

ChoiceList GenerationFlags::choice_list() const {
  ChoiceList list{.by_mean = choice_score == "mean"};
  if (!choices.empty()) list.texts = choices;
  if (!choices_file.empty()) list.texts = load_choices(choices_file);
  if (!list.texts.empty()) check_choices(list.texts);
  return list;
}

void GenerationFlags::check_score_is_used() const {
  if (choice_score.empty() || !choices.empty() || !choices_file.empty()) return;
  throw Error({.what = "has no effect without choices",
               .where = "--choice-score",
               .hint = "give --choices or --choices-file"});
}

OrderedJson GenerationFlags::describe() const {
  OrderedJson given;
  const auto add = [&](const char* name, const auto& value) {
    if (value) given[name] = *value;
  };
  given["--max-new-tokens"] = max_new_tokens;
  add("--min-new-tokens", min_new_tokens);
  if (do_sample || no_do_sample) given["--do-sample"] = do_sample;
  add("--temperature", temperature);
  add("--top-k", top_k);
  add("--top-p", top_p);
  add("--min-p", min_p);
  add("--typical-p", typical_p);
  add("--repetition-penalty", repetition_penalty);
  add("--no-repeat-ngram-size", no_repeat_ngram_size);
  add("--num-beams", num_beams);
  add("--length-penalty", length_penalty);
  if (!early_stopping.empty()) given["--early-stopping"] = early_stopping;
  add("--num-return-sequences", num_return_sequences);
  if (keep_special_tokens) given["--keep-special-tokens"] = true;
  if (format() != AnswerFormat::kText) given["--answer-format"] = answer_format;
  if (const auto wanted = rule()) given[rule_option()] = describe_rule(*wanted);
  if (!stop.empty()) given["--stop"] = stop;
  if (!bad_words.empty()) given["--bad-words"] = bad_words;
  const ChoiceList list = choice_list();
  if (!list.texts.empty()) given["--choices"] = list.texts;
  // Segments are ranked by it without a list.
  if (!list.texts.empty() || list.by_mean) given["--choice-score"] = list.by_mean ? "mean" : "sum";
  add("--abstain-below", abstain_below);
  return given;
}

}  // namespace vlm::infer

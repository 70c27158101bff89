// Command-line options of generation (sampling, beams, length, choices), alike in every command.
//
// Options that aren't given come from the checkpoint's generation_config.json. Names are those of
// transformers' GenerationConfig.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "infer/doctags/answer_format.h"
#include "infer/search/choices.h"
#include "infer/search/generation_options.h"
#include "infer/structured/answer_rule.h"
#include "vlm/core/json.h"
#include "vlm/text/tokenizer.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace vlm::infer {

struct GenerationFlags {
  std::int64_t max_new_tokens = 128;  // a command may change its default before it declares it
  std::optional<std::int64_t> min_new_tokens, top_k, no_repeat_ngram_size, num_beams,
      num_return_sequences, prompt_lookup;
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty, length_penalty;
  bool do_sample = false, no_do_sample = false;
  std::string early_stopping;  // empty: the checkpoint's
  std::vector<std::string> stop, bad_words;
  std::vector<std::string> choices;
  std::string choices_file;
  std::string choice_score;  // empty: sum
  std::optional<double> abstain_below;
  bool keep_special_tokens = false;
  std::string answer_format = "text";
  std::string json_schema, regex, grammar;  // empty: none
  bool json_object = false;

  // Declares --max-new-tokens and the rest.
  void declare(CLI::App& command);
  // Makes `scoring`, an option that scores given answers, refuse all options of generation.
  static void exclude_all(CLI::App& command, CLI::Option* scoring);

  // The checkpoint's options, replaced where an option was given. A sampling option turns sampling
  // on, unless --no-do-sample or temperature 0 turns it off. Throws Error for a value out of range.
  GenerationOptions apply(GenerationOptions options, std::uint64_t seed,
                          const Tokenizer& tokenizer) const;

  // How answers are shown.
  AnswerFormat format() const;

  // What every answer must look like, and the option that says so. Throws Error for a file that
  // can't be read, or holds no JSON.
  std::optional<AnswerRule> rule() const;
  std::string rule_option() const;
  // Files that the options name.
  std::vector<std::string> files() const;

  // The given choices; empty when there are none. Throws Error as load_choices.
  ChoiceList choice_list() const;
  // Throws Error for --choice-score without choices.
  void check_score_is_used() const;

  // The options that were given, for a run's journal.
  OrderedJson describe() const;
};

}  // namespace vlm::infer

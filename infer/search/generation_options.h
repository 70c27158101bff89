// How an answer is generated. Defaults come from the checkpoint's generation_config.json; names and
// meanings are those of transformers' GenerationConfig (5.23).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/config/fields.h"

namespace vlm::infer {

class AnswerGrammar;

struct GenerationOptions {
  std::int64_t max_new_tokens = 128;
  std::int64_t min_new_tokens = 0;
  std::vector<std::int64_t> eos_token_ids;  // any of them ends the answer
  std::vector<std::string> stop_strings;    // the answer ends with the token that completes one
  bool hides_stop_strings = false;          // the text ends in front of it (OpenAI's meaning)
  bool keep_special_tokens = false;         // in the text, all but the end token
  std::int64_t top_logprobs = 0;            // of each token, how many of the likeliest are told

  bool do_sample = false;
  double temperature = 1.0;
  std::int64_t top_k = 50;  // 0: all
  double top_p = 1.0;
  std::optional<double> min_p;
  double typical_p = 1.0;
  std::uint64_t seed = 0;
  // Sampling settings of the file that are out of range, in a file that doesn't sample; the fields
  // above then have neutral values. validate() warns of them when sampling is asked for.
  std::vector<std::string> unusable = {};

  double repetition_penalty = 1.0;
  std::int64_t no_repeat_ngram_size = 0;
  std::vector<std::vector<std::int64_t>> bad_words_ids;

  std::int64_t num_beams = 1;
  double length_penalty = 1.0;
  std::string early_stopping = "false";  // "true", "false" or "never"
  std::int64_t num_return_sequences = 1;

  // The most next tokens that are guessed and checked in one pass (prompt_lookup.h); 0: none, as
  // with beams and several answers. Changes no answer.
  std::int64_t prompt_lookup_num_tokens = 0;

  // What every answer must look like (infer/structured); null: anything. Penalties, bans and
  // filters choose among what it allows; where bans leave nothing of that, they don't count.
  std::shared_ptr<const AnswerGrammar> grammar = {};
  // The beginning of the answer, which the prompt ends with (forced_begin.h): bytes that the
  // grammar has taken, and bytes that the answer's first tokens spell, which are in no text.
  std::string grammar_begin = {}, forced_begin = {};
  bool has_begun() const { return !grammar_begin.empty() || !forced_begin.empty(); }

  // Rows of logits that an answer needs at once.
  std::int64_t rows() const;
  // Throws Error naming `where` and the field that is out of range or doesn't fit the others. Warns
  // of unusable settings if do_sample is on.
  void validate(const std::string& where) const;
};

// Reads generation_config.json. Where it is missing or names no end-of-sequence ids, they are those
// of config.json or else tokenizer_config.json's eos_token; what a family's code says ends its
// turns goes before all of them. Accepts what transformers accepts: null, unknown keys, settings of
// a search that isn't used. Warns once about settings that would change answers and are not
// supported. Throws Error naming file and key.
GenerationOptions load_generation_options(const std::filesystem::path& folder);

}  // namespace vlm::infer

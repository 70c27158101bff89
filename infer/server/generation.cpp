#include "infer/server/generation.h"

#include <algorithm>
#include <random>

#include "infer/server/api/api_error.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

template <typename Value>
void replace(Value& field, const std::optional<Value>& value) {
  if (value) field = *value;
}

// As the word is written at the start of a text, and behind a space.
void ban(const std::string& word, const Tokenizer& tokenizer, GenerationOptions& options) {
  for (const std::string& text : {word, " " + word}) {
    std::vector<std::int64_t> ids = tokenizer.encode(text);
    if (!ids.empty()) options.bad_words_ids.push_back(std::move(ids));
  }
}

void set_sampling(const Sampling& sampling, GenerationOptions& options) {
  // 0 and -1 mean all, and 1 all of the probability: with these nothing is asked for.
  const bool narrows = (sampling.top_p && *sampling.top_p < 1) ||
                       (sampling.top_k && *sampling.top_k > 0) || sampling.min_p.value_or(0) > 0 ||
                       (sampling.typical_p && *sampling.typical_p < 1);
  if (sampling.temperature) {
    options.do_sample = *sampling.temperature > 0;
  } else if (narrows) {
    options.do_sample = true;
  }
  if (sampling.top_p && *sampling.top_p == 0) options.do_sample = false;  // the likeliest alone
  if (options.do_sample) {
    replace(options.temperature, sampling.temperature);
    replace(options.top_p, sampling.top_p);
  }
  if (sampling.top_k) options.top_k = std::max<std::int64_t>(*sampling.top_k, 0);
  if (sampling.min_p) options.min_p = sampling.min_p;
  if (sampling.typical_p && *sampling.typical_p > 0) options.typical_p = *sampling.typical_p;
}

}  // namespace

GenerationOptions make_generation_options(GenerationOptions options, const AskedAnswer& asked,
                                          const Tokenizer& tokenizer, const Room& room) {
  const Sampling& sampling = asked.sampling;
  const std::int64_t left = room.context - room.prompt_tokens;
  options.max_new_tokens = std::min({left, room.max_tokens, sampling.max_tokens.value_or(left)});
  set_sampling(sampling, options);
  replace(options.repetition_penalty, sampling.repetition_penalty);
  replace(options.no_repeat_ngram_size, sampling.no_repeat_ngram_size);
  replace(options.num_beams, sampling.num_beams);
  replace(options.length_penalty, sampling.length_penalty);
  if (sampling.min_tokens) {
    options.min_new_tokens = std::min(*sampling.min_tokens, options.max_new_tokens);
  }
  for (const std::string& word : sampling.bad_words) ban(word, tokenizer, options);
  options.stop_strings.insert(options.stop_strings.end(), sampling.stop.begin(),
                              sampling.stop.end());
  options.hides_stop_strings = true;
  options.num_return_sequences = sampling.n;
  options.top_logprobs = asked.top_logprobs;
  std::random_device random;
  options.seed = sampling.seed ? static_cast<std::uint64_t>(*sampling.seed)
                               : (std::uint64_t{random()} << 32) | random();
  if (sampling.n > 1 && options.num_beams == 1 && !options.do_sample) {
    throw bad_value("n", concat(sampling.n), "1, as the answer is always the same",
                    "a temperature above 0 draws different ones, num_beams searches for them");
  }
  try {
    options.validate("");
  } catch (const Error& error) {
    throw ApiError({}, error.parts());
  }
  return options;
}

}  // namespace vlm::infer

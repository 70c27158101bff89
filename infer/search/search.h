// The search for the answer to one prompt: takes logits of its rows, gives next tokens and the rows
// that they continue.
//
//   logits [rows(), V] ─► advance ─► parents, ids (the rows of the next step) … ─► hypotheses
//
// Knows neither model nor cache: the caller feeds ids[j] to the model after the tokens of row
// parents[j]. The first logits are one row, that of the prompt. Greedy and sampling keep one row an
// answer, beam search num_beams. Reference: GenerationMixin._sample and ._beam_search, transformers
// 5.23.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "infer/search/generation_options.h"

namespace vlm::infer {

// A token and its log-probability under the model.
struct ChosenToken {
  std::int64_t id = 0;
  float logprob = 0;

  bool operator==(const ChosenToken&) const = default;
};

// The `count` likeliest tokens of a row [V] of log-probabilities, the likeliest first.
std::vector<ChosenToken> find_top(const at::Tensor& logprobs, std::int64_t count);

// One answer.
struct Hypothesis {
  std::vector<std::int64_t> ids;  // the end-of-sequence id included
  std::vector<double> logprobs;   // of each id: log softmax of the model's own logits
  // With options.top_logprobs, of each id: the likeliest in its place, the likeliest first. Beam
  // search tells none.
  std::vector<std::vector<ChosenToken>> top = {};
  // "stop" (an end id or stop string), "length", "interrupted", or "stuck": no token of the
  // vocabulary spells what the grammar asks for.
  std::string finish_reason;
  double score = 0;  // beam search: sum of log-probabilities / length^length_penalty

  bool operator==(const Hypothesis&) const = default;
};

struct SearchStep {
  std::vector<std::int64_t> parents;  // of each next row, the row that it continues
  std::vector<std::int64_t> ids;      // of each next row, the token to feed
  // Sampling: token of each former row, -1 where none was possible; beam search: none.
  std::vector<std::int64_t> chosen;
};

// The parts of a request that a search needs.
struct SearchContext {
  GenerationOptions options;
  std::vector<std::int64_t> prompt;
  // Random draws depend on options.seed and this number alone, not on what else is decoded.
  std::uint64_t stream = 0;
  // Whether the last id of prompt and answer completes a stop string; empty: never.
  std::function<bool(std::span<const std::int64_t>)> is_stopped;
};

class Search {
 public:
  virtual ~Search() = default;

  // Rows of logits for the next advance(); 0: done.
  virtual std::int64_t rows() const = 0;
  // `logits` float32 on the CPU. A step without rows means that the search is done.
  virtual SearchStep advance(const at::Tensor& logits) = 0;
  // True when the next step takes of each row's logits the likeliest token (the lowest id of
  // several) and nothing else. Then append(likeliest) does what advance(logits) would.
  virtual bool takes_likeliest() const { return false; }
  virtual SearchStep append(const std::vector<ChosenToken>& likeliest);
  // Ends answers that are still running, with finish_reason "interrupted".
  virtual void interrupt() = 0;
  // The best first; num_return_sequences of them once the search is done, or as many as beams
  // found where a grammar allows fewer.
  virtual std::vector<Hypothesis> hypotheses() const = 0;
  // The answers so far, where later steps only add to them; beam search has none.
  virtual std::span<const Hypothesis> answers() const { return {}; }

  // Entropy in nats of the first token's distribution, known after the first step.
  double first_token_entropy() const { return first_token_entropy_; }
  // Time to find what a grammar allows, so far.
  double mask_s() const { return mask_s_; }

 protected:
  double first_token_entropy_ = 0, mask_s_ = 0;
};

// Beam search for num_beams > 1, else greedy or sampling. max_new_tokens is at least 1.
std::unique_ptr<Search> make_search(SearchContext context);

}  // namespace vlm::infer

#include "infer/search/sample_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "infer/search/logits_processor.h"
#include "vlm/core/run/stopwatch.h"

namespace vlm::infer {
namespace {

bool contains(const std::vector<std::int64_t>& ids, std::int64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// The lowest of the ids with the largest score. Lanes that don't wait for each other: a vocabulary
// of 50,000 is read for every token of every answer.
std::int64_t find_likeliest(const float* scores, std::int64_t vocab) {
  constexpr std::int64_t kLanes = 16;
  float most[kLanes];
  std::fill_n(most, kLanes, -std::numeric_limits<float>::infinity());
  std::int64_t id = 0;
  for (; id + kLanes <= vocab; id += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      most[lane] = most[lane] < scores[id + lane] ? scores[id + lane] : most[lane];
    }
  }
  for (; id < vocab; ++id) most[0] = std::max(most[0], scores[id]);
  const float* found = std::find(scores, scores + vocab, *std::max_element(most, most + kLanes));
  return found == scores + vocab ? 0 : found - scores;  // no number is among them
}

}  // namespace

SampleSearch::SampleSearch(SearchContext context)
    : context_(std::move(context)),
      answers_(static_cast<std::size_t>(context_.options.num_return_sequences)),
      running_{0} {
  for (std::size_t i = 0; i < answers_.size(); ++i) {
    random_.emplace_back(context_.options.seed, context_.stream * 0x100000001ULL + i);
    guides_.emplace_back(context_.options);
  }
}

// The scores after grammar, penalties and filters.
at::Tensor SampleSearch::process(const at::Tensor& logits, bool is_first) {
  const GenerationOptions& options = context_.options;
  at::Tensor scores = logits.contiguous();
  const std::size_t rows = is_first ? 1 : running_.size();
  if (options.grammar) {
    scores = scores.clone();
    const Stopwatch watch(mask_s_);
    for (std::size_t row = 0; row < rows; ++row) {
      guides_[running_[row]].mask(scores.data_ptr<float>() + row * scores.size(1), scores.size(1));
    }
  }
  if (!changes_logits(options)) return scores;
  std::vector<std::vector<std::int64_t>> sequences;
  for (std::size_t row = 0; row < rows; ++row) {
    sequences.push_back(context_.prompt);
    const auto& ids = answers_[running_[row]].ids;
    sequences.back().insert(sequences.back().end(), ids.begin(), ids.end());
  }
  return process_logits(scores, sequences, static_cast<std::int64_t>(context_.prompt.size()),
                        options)
      .contiguous();
}

// The lowest of the likeliest ids, or one drawn by the softmax of the scores. -1: none is possible.
std::int64_t SampleSearch::choose(const float* scores, std::int64_t vocab, std::size_t answer) {
  const std::int64_t best = find_likeliest(scores, vocab);
  if (context_.options.grammar && std::isinf(scores[best]) && scores[best] < 0) return -1;
  if (!context_.options.do_sample) return best;
  double total = 0;
  std::vector<double> cumulated(static_cast<std::size_t>(vocab));
  for (std::int64_t id = 0; id < vocab; ++id) {
    total += std::exp(static_cast<double>(scores[id]) - scores[best]);
    cumulated[static_cast<std::size_t>(id)] = total;
  }
  const double wanted = random_[answer].uniform() * total;
  return std::upper_bound(cumulated.begin(), cumulated.end() - 1, wanted) - cumulated.begin();
}

// The same where the grammar takes it; what it refuses is struck from the scores.
std::int64_t SampleSearch::choose_accepted(float* scores, std::int64_t vocab, std::size_t answer) {
  for (;;) {
    const std::int64_t id = choose(scores, vocab, answer);
    if (id < 0 || guides_[answer].accept(id)) return id;
    scores[id] = -std::numeric_limits<float>::infinity();
  }
}

std::string SampleSearch::finish_reason(const Hypothesis& answer) const {
  const GenerationOptions& options = context_.options;
  if (contains(options.eos_token_ids, answer.ids.back())) return "stop";
  if (context_.is_stopped) {
    std::vector<std::int64_t> sequence = context_.prompt;
    sequence.insert(sequence.end(), answer.ids.begin(), answer.ids.end());
    if (context_.is_stopped(sequence)) return "stop";
  }
  const bool is_full = static_cast<std::int64_t>(answer.ids.size()) >= options.max_new_tokens;
  return is_full ? "length" : "";
}

SearchStep SampleSearch::advance(const at::Tensor& logits) {
  const std::int64_t vocab = logits.size(1);
  const at::Tensor model_logprobs = logits.log_softmax(-1);  // the model's own log-probabilities
  const bool is_first = std::exchange(is_first_, false);
  if (is_first) {
    first_token_entropy_ = -(model_logprobs.exp() * model_logprobs).nansum().item<double>();
    running_.resize(answers_.size());
    for (std::size_t i = 0; i < running_.size(); ++i) running_[i] = i;
  }
  const at::Tensor scores = process(logits, is_first);
  std::vector<ChosenToken> chosen;
  for (std::size_t row = 0; row < running_.size(); ++row) {
    const std::int64_t begin = is_first ? 0 : static_cast<std::int64_t>(row) * vocab;
    const std::int64_t id = choose_accepted(scores.data_ptr<float>() + begin, vocab, running_[row]);
    const float logprob = id < 0 ? 0 : model_logprobs.const_data_ptr<float>()[begin + id];
    chosen.push_back({.id = id, .logprob = logprob});
    if (context_.options.top_logprobs > 0 && id >= 0) {
      answers_[running_[row]].top.push_back(
          find_top(model_logprobs[begin / vocab], context_.options.top_logprobs));
    }
  }
  return append_tokens(chosen, is_first);
}

bool SampleSearch::takes_likeliest() const {
  const GenerationOptions& options = context_.options;
  return !is_first_ && !options.do_sample && options.top_logprobs == 0 && !options.grammar &&
         !changes_logits(options);
}

SearchStep SampleSearch::append(const std::vector<ChosenToken>& likeliest) {
  return append_tokens(likeliest, /*is_first=*/false);
}

// One token for each running answer; at the first step all of them come from row 0.
SearchStep SampleSearch::append_tokens(const std::vector<ChosenToken>& chosen, bool is_first) {
  SearchStep step;
  std::vector<std::size_t> left;
  for (std::size_t row = 0; row < running_.size(); ++row) {
    Hypothesis& answer = answers_[running_[row]];
    step.chosen.push_back(chosen[row].id);
    if (chosen[row].id < 0) {
      answer.finish_reason = "stuck";
      continue;
    }
    answer.ids.push_back(chosen[row].id);
    answer.logprobs.push_back(chosen[row].logprob);
    answer.finish_reason = finish_reason(answer);
    if (!answer.finish_reason.empty()) continue;
    step.parents.push_back(is_first ? 0 : static_cast<std::int64_t>(row));
    step.ids.push_back(chosen[row].id);
    left.push_back(running_[row]);
  }
  running_ = std::move(left);
  return step;
}

void SampleSearch::interrupt() {
  for (const std::size_t answer : running_) answers_[answer].finish_reason = "interrupted";
  running_.clear();
}

}  // namespace vlm::infer

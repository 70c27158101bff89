#include "infer/search/beam_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "infer/search/logits_processor.h"
#include "vlm/core/run/stopwatch.h"

namespace vlm::infer {
namespace {

// Stands for minus infinity in sums that must stay finite.
constexpr float kHopeless = -1.0e9F;

// Indexes of the `count` largest, the largest first, as at::topk breaks ties.
std::vector<std::int64_t> top_indexes(const std::vector<float>& values, std::int64_t count) {
  const at::Tensor indexes = std::get<1>(at::tensor(values).topk(count));
  const auto* data = indexes.const_data_ptr<std::int64_t>();
  return {data, data + count};
}

}  // namespace

BeamSearch::BeamSearch(SearchContext context)
    : context_(std::move(context)), random_(context_.options.seed, context_.stream) {
  const auto beams = static_cast<std::size_t>(context_.options.num_beams);
  running_.resize(beams);
  finished_.resize(beams);
  for (std::size_t i = 1; i < beams; ++i) running_[i].score = kHopeless;
  for (Beam& beam : finished_) beam.score = kHopeless;
  guides_.assign(beams, GrammarGuide(context_.options));
  for (std::size_t i = 1; i < beams; ++i) lose(i);
}

// From now on the beam is there for its row alone.
void BeamSearch::lose(std::size_t beam) {
  if (!context_.options.grammar) return;
  running_[beam].is_lost = true;
  guides_[beam].release();
}

std::int64_t BeamSearch::rows() const {
  if (is_done_) return 0;
  return steps_ == 0 ? 1 : context_.options.num_beams;
}

// -inf for what the grammar of a beam doesn't allow.
at::Tensor BeamSearch::follow_grammar(const at::Tensor& model_logprobs) {
  if (!context_.options.grammar) return model_logprobs;
  at::Tensor allowed = model_logprobs.clone();
  const Stopwatch watch(mask_s_);
  const std::int64_t vocab = allowed.size(1);
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    if (guides_[i].mask(allowed.data_ptr<float>() + row * vocab, vocab)) continue;
    if (!stuck_) stuck_ = running_[i];
    stuck_->answer.finish_reason = "stuck";
    running_[i].score += kHopeless;
    lose(i);
    allowed[row].copy_(model_logprobs[row]);
  }
  return allowed;
}

// Processed log-probabilities of every continuation on top of its beam's own, [num_beams · V].
at::Tensor BeamSearch::accumulate(const at::Tensor& allowed) {
  at::Tensor scores = allowed;
  if (changes_logits(context_.options)) {
    std::vector<std::vector<std::int64_t>> sequences;
    for (const Beam& beam : running_) {
      sequences.push_back(context_.prompt);
      sequences.back().insert(sequences.back().end(), beam.answer.ids.begin(),
                              beam.answer.ids.end());
    }
    scores = process_logits(allowed, sequences, static_cast<std::int64_t>(context_.prompt.size()),
                            context_.options);
  }
  std::vector<float> before;
  for (const Beam& beam : running_) before.push_back(beam.score);
  return (scores + at::tensor(before).unsqueeze(1)).flatten();
}

// The best continuations or, when sampling, as many drawn without replacement, in the order of the
// draws (Gumbel's trick: the largest of log p + noise).
at::Tensor BeamSearch::choose_candidates(const at::Tensor& accumulated, std::int64_t count) {
  if (!context_.options.do_sample) return std::get<1>(accumulated.topk(count));
  at::Tensor noisy = accumulated.clone();
  float* values = noisy.data_ptr<float>();
  for (std::int64_t i = 0; i < noisy.numel(); ++i) {
    values[i] -= static_cast<float>(std::log(-std::log(random_.uniform())));
  }
  return std::get<1>(noisy.topk(count));
}

std::vector<BeamSearch::Candidate> BeamSearch::best_candidates(const at::Tensor& accumulated,
                                                               const at::Tensor& model_logprobs) {
  const GenerationOptions& options = context_.options;
  const auto ends = static_cast<std::int64_t>(options.eos_token_ids.size());
  const std::int64_t count = std::max<std::int64_t>(2, 1 + ends) * options.num_beams;
  const std::int64_t vocab = model_logprobs.size(1);
  const at::Tensor best = choose_candidates(accumulated, std::min(count, accumulated.numel()));
  std::vector<Candidate> candidates;
  for (std::int64_t i = 0; i < best.numel(); ++i) {
    const std::int64_t index = best.const_data_ptr<std::int64_t>()[i];
    const float score = accumulated.const_data_ptr<float>()[index];
    if (options.grammar && std::isinf(score)) break;  // what may not follow comes last
    Candidate candidate{.parent = index / vocab, .id = index % vocab};
    const Beam& parent = running_[static_cast<std::size_t>(candidate.parent)];
    candidate.beam = {.answer = parent.answer, .score = score, .is_lost = parent.is_lost};
    Hypothesis& answer = candidate.beam.answer;
    answer.ids.push_back(candidate.id);
    answer.logprobs.push_back(model_logprobs.const_data_ptr<float>()[index]);
    const auto& eos = options.eos_token_ids;
    bool is_stopped = std::find(eos.begin(), eos.end(), candidate.id) != eos.end();
    if (!is_stopped && context_.is_stopped) {
      std::vector<std::int64_t> sequence = context_.prompt;
      sequence.insert(sequence.end(), answer.ids.begin(), answer.ids.end());
      is_stopped = context_.is_stopped(sequence);
    }
    candidate.is_ended = is_stopped || steps_ + 1 >= options.max_new_tokens;
    answer.finish_reason = is_stopped ? "stop" : "length";
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

// Whether the grammar refuses any of them; those are struck from the scores.
bool BeamSearch::strike_refused(const std::vector<Candidate>& candidates,
                                const at::Tensor& accumulated) const {
  if (!context_.options.grammar) return false;
  const std::int64_t vocab = accumulated.numel() / context_.options.num_beams;
  bool is_any = false;
  for (const Candidate& candidate : candidates) {
    GrammarGuide guide = guides_[static_cast<std::size_t>(candidate.parent)];
    if (guide.accept(candidate.id)) continue;
    is_any = true;
    accumulated.data_ptr<float>()[candidate.parent * vocab + candidate.id] =
        -std::numeric_limits<float>::infinity();
  }
  return is_any;
}

// Ended candidates among the first num_beams join the finished ones when they score higher.
void BeamSearch::keep_finished(const std::vector<Candidate>& candidates) {
  const GenerationOptions& options = context_.options;
  const bool is_full =
      std::all_of(finished_.begin(), finished_.end(), [](const Beam& b) { return b.is_finished; });
  const bool is_closed = (is_full && options.early_stopping == "true") || !is_improvable_;
  const auto divisor =
      static_cast<float>(std::pow(static_cast<double>(steps_ + 1), options.length_penalty));
  std::vector<Beam> merged = finished_;
  std::vector<float> scores;
  for (const Beam& beam : finished_) scores.push_back(beam.score);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    Beam beam = candidates[i].beam;
    beam.is_finished =
        candidates[i].is_ended && !beam.is_lost && static_cast<std::int64_t>(i) < options.num_beams;
    beam.score =
        beam.score / divisor + (is_closed ? kHopeless : 0) + (beam.is_finished ? 0 : kHopeless);
    scores.push_back(beam.score);
    merged.push_back(std::move(beam));
  }
  std::vector<Beam> kept;
  for (const std::int64_t index : top_indexes(scores, options.num_beams)) {
    kept.push_back(merged[static_cast<std::size_t>(index)]);
  }
  finished_ = std::move(kept);
}

// Whether the best running beam could, by the chosen heuristic, still beat a finished one.
bool BeamSearch::can_improve() const {
  const GenerationOptions& options = context_.options;
  const bool looks_ahead = options.early_stopping == "never" && options.length_penalty > 0;
  const std::int64_t length = looks_ahead ? options.max_new_tokens : steps_;
  const auto divisor =
      static_cast<float>(std::pow(static_cast<double>(length), options.length_penalty));
  const float best = running_.front().score / divisor;
  float worst = finished_.front().score;
  for (const Beam& beam : finished_) worst = std::min(worst, beam.score);
  return std::any_of(finished_.begin(), finished_.end(), [&](const Beam& beam) {
    return best > (beam.is_finished ? worst : kHopeless);
  });
}

SearchStep BeamSearch::advance(const at::Tensor& logits) {
  const GenerationOptions& options = context_.options;
  at::Tensor model_logprobs = logits.log_softmax(-1);
  const bool is_first = steps_ == 0;
  if (is_first) {
    first_token_entropy_ = -(model_logprobs.exp() * model_logprobs).nansum().item<double>();
    model_logprobs = model_logprobs.expand({options.num_beams, -1});
  }
  model_logprobs = model_logprobs.contiguous();
  const at::Tensor accumulated = accumulate(follow_grammar(model_logprobs));
  std::vector<Candidate> candidates;
  do {
    candidates = best_candidates(accumulated, model_logprobs);
  } while (strike_refused(candidates, accumulated));

  std::vector<float> scores;
  for (const Candidate& candidate : candidates) {
    scores.push_back(candidate.beam.score + (candidate.is_ended ? kHopeless : 0));
  }
  SearchStep step;
  std::vector<Beam> next;
  std::vector<GrammarGuide> guides;
  for (const std::int64_t index : top_indexes(scores, options.num_beams)) {
    const Candidate& candidate = candidates[static_cast<std::size_t>(index)];
    step.parents.push_back(is_first ? 0 : candidate.parent);
    step.ids.push_back(candidate.id);
    next.push_back(candidate.beam);
    next.back().score = scores[static_cast<std::size_t>(index)];
    guides.push_back(guides_[static_cast<std::size_t>(candidate.parent)]);
    if (candidate.is_ended && options.grammar) {
      next.back().is_lost = true;
      guides.back().release();
    }
    guides.back().accept(candidate.id);
  }
  running_ = std::move(next);
  guides_ = std::move(guides);
  keep_finished(candidates);
  ++steps_;

  is_improvable_ = is_improvable_ && can_improve();
  const bool is_full =
      std::all_of(finished_.begin(), finished_.end(), [](const Beam& b) { return b.is_finished; });
  const bool is_any_running =
      std::any_of(candidates.begin(), candidates.end(),
                  [](const Candidate& one) { return !one.is_ended && !one.beam.is_lost; });
  is_done_ = !is_improvable_ || (is_full && options.early_stopping == "true") || !is_any_running;
  return is_done_ ? SearchStep{} : step;
}

void BeamSearch::interrupt() {
  // What runs is the best there is when nothing has ended yet.
  for (std::size_t i = 0; i < finished_.size(); ++i) {
    if (finished_[i].is_finished || i >= running_.size() || running_[i].is_lost) continue;
    finished_[i] = running_[i];
    finished_[i].answer.finish_reason = "interrupted";
  }
  is_done_ = true;
}

std::vector<Hypothesis> BeamSearch::hypotheses() const {
  std::vector<Hypothesis> best;
  const auto count = static_cast<std::size_t>(context_.options.num_return_sequences);
  for (std::size_t i = 0; i < std::min(count, finished_.size()); ++i) {
    const Beam& beam = finished_[i];
    const bool is_answer = beam.is_finished || beam.answer.finish_reason == "interrupted";
    if (context_.options.grammar && !is_answer) continue;
    best.push_back(beam.answer);
    best.back().score = finished_[i].score;
  }
  if (best.empty() && stuck_) best.push_back(stuck_->answer);
  return best;
}

}  // namespace vlm::infer

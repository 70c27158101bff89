// Beam search, with or without sampling, step by step as transformers' _beam_search.
#pragma once

#include <optional>
#include <vector>

#include "infer/search/grammar_guide.h"
#include "infer/search/random.h"
#include "infer/search/search.h"

namespace vlm::infer {

class BeamSearch : public Search {
 public:
  explicit BeamSearch(SearchContext context);

  std::int64_t rows() const override;
  SearchStep advance(const at::Tensor& logits) override;
  void interrupt() override;
  std::vector<Hypothesis> hypotheses() const override;

 private:
  struct Beam {
    Hypothesis answer;
    float score = 0;  // accumulated, processed log-probability
    bool is_finished = false;
    // Only there to fill a row, with a hopeless score: a grammar may leave fewer ways than beams.
    bool is_lost = false;
  };
  // A running beam with one more token.
  struct Candidate {
    std::int64_t parent = 0, id = 0;
    Beam beam;
    bool is_ended = false;  // by an end id, a stop string or the length
  };

  at::Tensor follow_grammar(const at::Tensor& model_logprobs);
  void lose(std::size_t beam);
  at::Tensor accumulate(const at::Tensor& allowed);
  std::vector<Candidate> best_candidates(const at::Tensor& accumulated,
                                         const at::Tensor& model_logprobs);
  bool strike_refused(const std::vector<Candidate>& candidates,
                      const at::Tensor& accumulated) const;
  at::Tensor choose_candidates(const at::Tensor& accumulated, std::int64_t count);
  void keep_finished(const std::vector<Candidate>& candidates);
  bool can_improve() const;

  SearchContext context_;
  std::vector<Beam> running_, finished_;  // num_beams each, best first
  std::vector<GrammarGuide> guides_;      // of the running ones
  std::optional<Beam> stuck_;             // the first that the grammar left no way to go on
  std::int64_t steps_ = 0;
  bool is_improvable_ = true;  // a running beam may still beat the finished ones
  bool is_done_ = false;
  CountedRandom random_;
};

}  // namespace vlm::infer

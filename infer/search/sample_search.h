// Greedy search and sampling: every answer gets one token a step, independently of the others.
#pragma once

#include <vector>

#include "infer/search/grammar_guide.h"
#include "infer/search/random.h"
#include "infer/search/search.h"

namespace vlm::infer {

class SampleSearch : public Search {
 public:
  explicit SampleSearch(SearchContext context);

  std::int64_t rows() const override { return static_cast<std::int64_t>(running_.size()); }
  SearchStep advance(const at::Tensor& logits) override;
  bool takes_likeliest() const override;
  SearchStep append(const std::vector<ChosenToken>& likeliest) override;
  void interrupt() override;
  std::vector<Hypothesis> hypotheses() const override { return answers_; }
  std::span<const Hypothesis> answers() const override { return answers_; }

 private:
  at::Tensor process(const at::Tensor& logits, bool is_first);
  std::int64_t choose(const float* scores, std::int64_t vocab, std::size_t answer);
  std::int64_t choose_accepted(float* scores, std::int64_t vocab, std::size_t answer);
  SearchStep append_tokens(const std::vector<ChosenToken>& chosen, bool is_first);
  std::string finish_reason(const Hypothesis& answer) const;

  SearchContext context_;
  std::vector<Hypothesis> answers_;    // num_return_sequences
  std::vector<CountedRandom> random_;  // one an answer
  std::vector<GrammarGuide> guides_;   // one an answer
  std::vector<std::size_t> running_;   // row → answer
  bool is_first_ = true;
};

}  // namespace vlm::infer

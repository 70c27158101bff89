// Where an answer stands in the grammar that it has to follow.
//
//   scores of the next token ─► mask ─► -inf for what can't follow; the token that was chosen ─►
//   accept, or another one is chosen
//
// Without a grammar everything may follow. A copy goes its own way: for beams. End tokens may come
// where the answer is complete, and nowhere else.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infer/search/generation_options.h"
#include "infer/structured/answer_matcher.h"

namespace vlm::infer {

class GrammarGuide {
 public:
  explicit GrammarGuide(const GenerationOptions& options);
  GrammarGuide(const GrammarGuide& other);
  GrammarGuide& operator=(const GrammarGuide& other);
  GrammarGuide(GrammarGuide&&) noexcept = default;
  GrammarGuide& operator=(GrammarGuide&&) noexcept = default;

  bool is_on() const { return matcher_ != nullptr; }
  // `row` points at the scores of `vocab` ids. False: no id may follow, and the row is all -inf.
  bool mask(float* row, std::int64_t vocab);
  // False: the grammar refuses the id, though the mask let it pass, and nothing has changed. The
  // mask of XGrammar 0.2.9 does that for tokens that end within a character.
  bool accept(std::int64_t id);
  // Lets everything pass from now on.
  void release() { matcher_ = nullptr; }

 private:
  void keep_spelling();

  std::shared_ptr<const AnswerGrammar> grammar_;
  std::unique_ptr<AnswerMatcher> matcher_;
  std::string forced_;  // bytes that the next tokens spell
  std::vector<std::int64_t> end_ids_;
  std::vector<std::uint32_t> allowed_;
};

}  // namespace vlm::infer

// Guesses of an answer's next tokens, to be checked in one pass of the model: what followed the
// last tokens where they stood before, in the prompt, the answer, or earlier answers.
//
//   prompt and answer so far ─► guess ─► ids, perhaps none
//
// A right guess saves a pass; a wrong one costs little where a pass's time goes into reading the
// weights. Answers stay the same. Useful where answers repeat their prompt (documents, JSON) or
// each other (captions of a folder). Reference: PromptLookupCandidateGenerator of transformers
// 5.23, which knows no earlier answers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace vlm::infer {

class PromptLookup {
 public:
  // At most `most` ids. The longest run of last tokens that stands anywhere decides, 3 down to 2;
  // of several places the latest one, and the sequence itself before earlier answers.
  std::vector<std::int64_t> guess(std::span<const std::int64_t> sequence, std::int64_t most) const;

  // An answer that is complete; the oldest ones are forgotten.
  void remember(std::span<const std::int64_t> answer);

 private:
  std::vector<std::int64_t> answers_;  // one behind the other, kEnd between them
};

}  // namespace vlm::infer

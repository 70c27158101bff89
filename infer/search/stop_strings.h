// Ends an answer with the token that completes one of the stop strings.
//
// As transformers' StopStringCriteria: the string must overlap the last token; it may begin in an
// earlier one, the prompt's included, and the last token may be longer than the string's end.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vlm/text/tokenizer.h"

namespace vlm::infer {

class StopStrings {
 public:
  // The tokenizer must outlive this.
  StopStrings(const Tokenizer& tokenizer, std::vector<std::string> strings);

  // Whether the last id of `sequence` (prompt and answer) completes a stop string.
  bool is_completed_by_last(std::span<const std::int64_t> sequence) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::string> strings_;
  std::size_t longest_ = 0;
};

}  // namespace vlm::infer

// Texts of a vocabulary that would become special tokens, kept from doing so.
//
//   "say <end_of_utterance>" ─► as_plain ─► the same with a mark (vlm/text/plain_mark.h)
//
// What a client writes is text, whatever it looks like: else it could end its own turn, or show
// pictures that aren't there.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>

#include "vlm/text/tokenizer.h"

namespace vlm::infer {

class SpecialTexts {
 public:
  explicit SpecialTexts(const Tokenizer& tokenizer);

  std::string as_plain(std::string_view text) const;

 private:
  bool begins_at(std::string_view text, std::size_t at) const;

  std::unordered_set<std::string> texts_;
  std::string first_characters_;
  std::size_t longest_ = 0;
};

}  // namespace vlm::infer

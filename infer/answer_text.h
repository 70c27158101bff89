// Ids of an answer → its text. Tokens of words begin with a space; in front of the answer's first
// word it has no meaning and is removed, from whole and from streamed text. The ids are not
// changed.
#pragma once

#include <string>

#include "vlm/text/tokenizer.h"

namespace vlm::infer {

inline std::string without_leading_space(std::string text) {
  return text.erase(0, text.find_first_not_of(' '));
}

// Makes the text of an answer while its ids come one by one; special tokens are left out. The
// tokenizer must outlive it.
class AnswerStream {
 public:
  explicit AnswerStream(const Tokenizer& tokenizer)
      : decoder_(tokenizer, /*skip_special_tokens=*/true) {}

  std::string add(std::int64_t id) { return next(decoder_.add(id)); }
  std::string finish() { return next(decoder_.finish()); }

 private:
  std::string next(std::string piece) {
    if (!has_begun_) piece = without_leading_space(std::move(piece));
    has_begun_ = has_begun_ || !piece.empty();
    return piece;
  }

  StreamDecoder decoder_;
  bool has_begun_ = false;
};

}  // namespace vlm::infer

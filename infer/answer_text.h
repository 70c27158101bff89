// Ids of an answer → its text. Tokens of words begin with a space; in front of the answer's first
// word it has no meaning and is removed, from whole and from streamed text. Special tokens are left
// out unless they are asked for, and then the one that ends the answer still is. The ids are not
// changed. An answer that follows a grammar is what the grammar says, its spaces too.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "infer/search/generation_options.h"
#include "vlm/text/tokenizer.h"

namespace vlm::infer {

inline std::string without_leading_space(std::string text) {
  return text.erase(0, text.find_first_not_of(' '));
}

inline bool is_end_token(std::int64_t id, const GenerationOptions& options) {
  const auto& ends = options.eos_token_ids;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

inline std::string answer_text(const Tokenizer& tokenizer, std::span<const std::int64_t> ids,
                               const GenerationOptions& options) {
  if (options.grammar) return tokenizer.decode(ids, true);
  if (!options.keep_special_tokens) return without_leading_space(tokenizer.decode(ids, true));
  if (!ids.empty() && is_end_token(ids.back(), options)) ids = ids.first(ids.size() - 1);
  return without_leading_space(tokenizer.decode(ids, false));
}

// Makes the same text while its ids come one by one. Tokenizer and options must outlive it.
class AnswerStream {
 public:
  AnswerStream(const Tokenizer& tokenizer, const GenerationOptions& options)
      : options_(options),
        decoder_(tokenizer, !options.keep_special_tokens || options.grammar),
        has_begun_(options.grammar != nullptr) {}

  std::string add(std::int64_t id) {
    const bool is_hidden = options_.keep_special_tokens && is_end_token(id, options_);
    return is_hidden ? "" : next(decoder_.add(id));
  }
  std::string finish() { return next(decoder_.finish()); }

 private:
  std::string next(std::string piece) {
    if (!has_begun_) piece = without_leading_space(std::move(piece));
    has_begun_ = has_begun_ || !piece.empty();
    return piece;
  }

  const GenerationOptions& options_;
  StreamDecoder decoder_;
  bool has_begun_;
};

}  // namespace vlm::infer

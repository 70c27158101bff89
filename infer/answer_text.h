// Ids of an answer → its text. Tokens of words begin with a space; in front of the answer's first
// word it has no meaning and is removed, from whole and from streamed text. Special tokens are left
// out unless they are asked for, and then the one that ends the answer still is. The ids are not
// changed. An answer that follows a grammar is what the grammar says, its spaces too.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

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

// Where the first of the stop strings begins; npos where there is none.
inline std::size_t find_stop(const std::string& text, const std::vector<std::string>& stops) {
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops) {
    if (!stop.empty()) first = std::min(first, text.find(stop));
  }
  return first;
}

inline std::string answer_text(const Tokenizer& tokenizer, std::span<const std::int64_t> ids,
                               const GenerationOptions& options) {
  const bool is_ended = !ids.empty() && is_end_token(ids.back(), options);
  if (options.keep_special_tokens && is_ended) ids = ids.first(ids.size() - 1);
  const bool keeps_special = options.keep_special_tokens && !options.grammar;
  std::string text = tokenizer.decode(ids, !keeps_special);
  if (!options.grammar) text = without_leading_space(std::move(text));
  if (options.hides_stop_strings) {
    text.resize(std::min(find_stop(text, options.stop_strings), text.size()));
  }
  return text;
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

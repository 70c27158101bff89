// The ids of an answer as they come → pieces of its text that can't change any more, and their
// tokens.
//
//   Hypothesis, growing ─► AnswerPieces ─► AnswerPiece … (joined: Generation::text)
//
// A piece ends between two characters, and holds nothing that a stop string which stays out of the
// text (GenerationOptions::hides_stop_strings) may still take away. The bytes of its tokens,
// joined, are its text, but where they are no UTF-8.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infer/search/search.h"
#include "vlm/text/tokenizer.h"

namespace vlm::infer {

struct TokenText {
  std::int64_t id = 0;
  double logprob = 0;  // the model's own, before any filter
  std::string bytes;   // a part of a character, perhaps
};

struct PieceToken : TokenText {
  std::vector<TokenText> top;  // GenerationOptions::top_logprobs of them, the likeliest first
};

struct AnswerPiece {
  std::uint64_t request = 0;  // Request::id
  std::int64_t sequence = 0;  // of several answers to one request
  std::string text;
  std::vector<PieceToken> tokens;  // without the end token
};

// Of one sequence. Tokenizer and options must outlive it.
class AnswerPieces {
 public:
  AnswerPieces(const Tokenizer& tokenizer, const GenerationOptions& options);
  ~AnswerPieces();
  AnswerPieces(AnswerPieces&&) noexcept;

  // What is certain of the answer so far and was not given yet; empty when that is nothing.
  AnswerPiece add(const Hypothesis& answer);
  // The rest of a whole answer.
  AnswerPiece finish(const Hypothesis& answer);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vlm::infer

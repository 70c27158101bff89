// The beginning of an answer that stands in its prompt already, where a grammar holds for all of
// it.
//
//   a text, the bytes of its tokens, AnswerGrammar ─► find_forced_begin ─► the tokens that stay in
//   the prompt, and the bytes that the answer's own tokens spell first
//
// The end of a text is seldom the end of a token: behind `{"a` the model expects `":`, which may be
// one token, and behind `{"a"` it would have to write a lone `:`, as it never does. So tokens at
// the text's end leave the prompt, as far back as the grammar allows one that spans the end, and
// the answer begins with whatever tokens spell their bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "infer/structured/answer_grammar.h"

namespace vlm::infer {

struct ForcedBegin {
  std::size_t kept_tokens = 0;
  std::string kept, rest;  // bytes: taken by the grammar at once; to be spelled
};

// `tokens`: the bytes of the text's tokens; spaces that a template puts in front are part of the
// first. Throws Error for a text with which no answer of the grammar begins.
ForcedBegin find_forced_begin(const AnswerGrammar& grammar, const std::string& text,
                              std::span<const std::string> tokens);

}  // namespace vlm::infer

// Scores of the next token → scores after penalties, bans and filters, in transformers' order.
//
//   scores [R, V] float32, and the tokens before each row ─► scores [R, V], -inf = can't be chosen
//
// What a grammar doesn't allow is -inf before (grammar_guide.h).
// Order and arithmetic are those of GenerationMixin._get_logits_processor and
// generation/logits_process.py, transformers 5.23: repetition penalty, no-repeat n-grams, bad
// words, least number of new tokens; and when sampling, temperature, top-k, top-p, min-p,
// typical-p.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "infer/search/generation_options.h"

namespace vlm::infer {

// False when process_logits would return its input.
bool changes_logits(const GenerationOptions& options);

// `sequences` holds prompt and answer of each row, `prompt_tokens` of them prompt. Throws Error for
// a bad word outside the vocabulary.
at::Tensor process_logits(const at::Tensor& scores,
                          const std::vector<std::vector<std::int64_t>>& sequences,
                          std::int64_t prompt_tokens, const GenerationOptions& options);

}  // namespace vlm::infer

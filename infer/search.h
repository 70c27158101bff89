// Logits → next ids. Sees numbers only: no model, no text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm::infer {

struct NextTokens {
  std::vector<std::int64_t> ids;  // one a row
  std::vector<double> logprobs;   // log softmax of the logits, in float32
};

// The likeliest id of each row of logits [B, V]; the lowest of equals.
NextTokens greedy_search(const at::Tensor& logits);

}  // namespace vlm::infer

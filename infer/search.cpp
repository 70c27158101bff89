#include "infer/search.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>

namespace vlm::infer {

NextTokens greedy_search(const at::Tensor& logits) {
  const at::Tensor scores = logits.to(at::kFloat).log_softmax(-1);
  const at::Tensor ids = logits.argmax(-1);
  const at::Tensor chosen = scores.gather(1, ids.unsqueeze(1)).squeeze(1).cpu().to(at::kDouble);
  const at::Tensor host_ids = ids.cpu();
  NextTokens next;
  for (std::int64_t row = 0; row < logits.size(0); ++row) {
    next.ids.push_back(host_ids[row].item<std::int64_t>());
    next.logprobs.push_back(chosen[row].item<double>());
  }
  return next;
}

}  // namespace vlm::infer

#include "infer/request.h"

#include <algorithm>
#include <numeric>

namespace vlm::infer {

double Generation::mean_logprob() const {
  const double sum = std::accumulate(logprobs.begin(), logprobs.end(), 0.0);
  return logprobs.empty() ? 0 : sum / static_cast<double>(logprobs.size());
}

double Generation::min_logprob() const {
  return logprobs.empty() ? 0 : *std::min_element(logprobs.begin(), logprobs.end());
}

}  // namespace vlm::infer

#include "infer/search/search.h"

#include <ATen/ops/topk.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "infer/search/beam_search.h"
#include "infer/search/sample_search.h"

namespace vlm::infer {

SearchStep Search::append(const std::vector<ChosenToken>&) {
  TORCH_CHECK(false, "this search needs the logits of every step");
}

std::vector<ChosenToken> find_top(const at::Tensor& logprobs, std::int64_t count) {
  const auto [values, ids] = logprobs.topk(std::min(count, logprobs.size(0)));
  std::vector<ChosenToken> top;
  for (std::int64_t i = 0; i < ids.size(0); ++i) {
    top.push_back({.id = ids.const_data_ptr<std::int64_t>()[i],
                   .logprob = values.const_data_ptr<float>()[i]});
  }
  return top;
}

std::unique_ptr<Search> make_search(SearchContext context) {
  if (context.options.num_beams > 1) return std::make_unique<BeamSearch>(std::move(context));
  return std::make_unique<SampleSearch>(std::move(context));
}

}  // namespace vlm::infer

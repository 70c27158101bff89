#include "infer/search/search.h"

#include <c10/util/Exception.h>

#include "infer/search/beam_search.h"
#include "infer/search/sample_search.h"

namespace vlm::infer {

SearchStep Search::append(const std::vector<ChosenToken>&) {
  TORCH_CHECK(false, "this search needs the logits of every step");
}

std::unique_ptr<Search> make_search(SearchContext context) {
  if (context.options.num_beams > 1) return std::make_unique<BeamSearch>(std::move(context));
  return std::make_unique<SampleSearch>(std::move(context));
}

}  // namespace vlm::infer

#include "infer/search/search.h"

#include "infer/search/beam_search.h"
#include "infer/search/sample_search.h"

namespace vlm::infer {

std::unique_ptr<Search> make_search(SearchContext context) {
  if (context.options.num_beams > 1) return std::make_unique<BeamSearch>(std::move(context));
  return std::make_unique<SampleSearch>(std::move(context));
}

}  // namespace vlm::infer

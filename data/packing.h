// Examples of one optimizer step → packed rows without padding, under two budgets.
//
//   Examples ─► pack ─► Batches of one row [1, T], T ≤ max_tokens, pictures ≤ max_units, with the
//   segments that say who sees whom
//
// Loss and gradients equal those of the same examples unpacked: positions begin anew in each
// segment, and labels stay with their example. Examples that show the same pictures can share one
// copy of them: the beginning that their ids have in common, up to the end of the pictures and
// before any learned token, becomes a prefix segment, and the remaining ids of each example become
// a segment with this prefix. Rows are filled first-fit, longest first. Depends on the examples
// alone.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"

namespace vlm::data {

struct PackOptions {
  std::int64_t max_tokens = 2048;  // of a row; a longer example gets a row for itself
  std::int64_t max_units = 0;      // of a row's pictures (Pixels::units), each once; 0: no bound
  bool share_pictures = false;
  // Examples up to this length share no prefix with longer ones (VisionLanguageModel); 0: no bound.
  std::int64_t switch_length = 0;
};

std::vector<Batch> pack(const std::vector<Example>& examples, const PackOptions& options);

}  // namespace vlm::data

// Parts of a batch, for a device that can't hold all of it at once.
//
//   Batch of several samples ─► Batches, whose losses' sums add up to the whole one's
//
// Padded rows are cut between rows, a packed row between segments, never between a prefix and who
// sees it. Tensors are views of the batch's; a picture that several parts show is in each.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"

namespace vlm::train {

// The batch cut in two `halvings` times, as far as it can be cut: one sample can't, nor one prefix
// with all that see it. `media_ids`: ids that stand for pictures.
std::vector<data::Batch> split_batch(const data::Batch& batch,
                                     const std::vector<std::int64_t>& media_ids, int halvings);

}  // namespace vlm::train

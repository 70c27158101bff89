// What samples will cost, without making their tiles: tokens, tiles, labels.
//
//   Dataset ─► measure_samples ─► SampleSize of each
//
// Texts are tokenized, and pictures opened for their sizes, once each. For grouping by length, and
// for saying beforehand what a run takes.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "vlm/models/processor.h"

namespace vlm::data {

struct SampleSize {
  std::int64_t tokens = 0;
  std::int64_t tiles = 0;
  std::int64_t labels = 0;
};

// Of every sample, or of those at `indices`. Throws Error naming the first sample that can't be
// read.
std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        std::int64_t threads);
std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        std::int64_t threads,
                                        const std::vector<std::int64_t>& indices);

}  // namespace vlm::data

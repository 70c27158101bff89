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
#include "data/encode_options.h"
#include "vlm/models/processor.h"

namespace vlm::data {

struct SampleSize {
  std::int64_t tokens = 0;
  std::int64_t tiles = 0;
  std::int64_t labels = 0;
};

struct MeasureOptions {
  EncodeOptions encode;  // as training encodes; its lookup and augmentation have no effect
  std::int64_t threads = 1;
  std::int64_t max_bad_samples = 0;
};

// Of every sample, or of those at `indices`. A sample that training would pass over has the size of
// the next one that it can use. Throws the Error of the first bad sample when there are more than
// max_bad_samples.
std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options);
std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options,
                                        const std::vector<std::int64_t>& indices);

}  // namespace vlm::data

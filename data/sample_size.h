// Sizes of samples in tokens, pictures and labels, without making the pixels.
//
//   Dataset ─► measure_samples ─► SampleSize of each
//
// Texts are tokenized, and each picture is opened once for its size. For grouping by length, and
// for planning a run.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "data/encode_options.h"
#include "vlm/models/interface/processor.h"

namespace vlm::data {

struct SampleSize {
  std::int64_t tokens = 0;
  std::int64_t tiles = 0;           // or patches: what the encoder's work is counted in
  std::int64_t picture_tokens = 0;  // tokens in whose places features stand
  std::int64_t labels = 0;
};

struct MeasureOptions {
  EncodeOptions encode;  // as training encodes; its lookup and augmentation have no effect
  std::int64_t threads = 1;
  std::int64_t max_bad_samples = 0;
};

// Sizes of every sample, or of those at `indices`. A sample that training would skip has the size
// of the next usable one. Throws the Error of the first bad sample when there are more than
// max_bad_samples.
std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options);
std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options,
                                        const std::vector<std::int64_t>& indices);

}  // namespace vlm::data

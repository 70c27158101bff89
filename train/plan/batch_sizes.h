// Sizes of the batches that the loader will make of samples of known sizes.
//
//   sizes of a step's samples, in order ─► sizes of its batches
#pragma once

#include <cstdint>
#include <vector>

#include "data/sample_size.h"
#include "train/config/train_config.h"

namespace vlm::train {

struct BatchSize {
  std::int64_t tokens = 0;  // without padding
  std::int64_t slots = 0;   // with padding
  std::int64_t labels = 0;
  std::int64_t tiles = 0;  // each picture once
};

// A step's sample: its size and the number of the group it may share pictures with.
struct StepSample {
  data::SampleSize size;
  std::int64_t group = -1;
};

// Follows data::collate and data::pack. Samples that share pictures are assumed to share only the
// tokens of the pictures.
std::vector<BatchSize> batch_sizes(const std::vector<StepSample>& samples,
                                   const TrainConfig& config);

}  // namespace vlm::train

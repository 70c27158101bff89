// Which samples each optimizer step takes: a pure function of seed and step, so that a resumed run
// goes on exactly.
//
// Steps run through the stages; within a stage every epoch is a new seeded order, and an epoch's
// last step may be short.
#pragma once

#include <cstdint>
#include <vector>

#include "train/mixture.h"

namespace vlm::train {

struct StageSize {
  std::int64_t samples = 0;           // of an epoch
  std::int64_t steps = 0;             // of this stage
  std::vector<MixPart> mixture = {};  // its files; empty: an epoch takes every sample once
};

// Samples of one optimizer step.
struct StepPlan {
  std::int64_t stage = 0;
  std::int64_t epoch = 0;
  std::vector<std::int64_t> samples;  // indices into the stage's dataset
};

class DataPlan {
 public:
  DataPlan(std::vector<StageSize> stages, std::int64_t samples_per_step, bool shuffle,
           std::uint64_t seed);

  std::int64_t total_steps() const;
  StepPlan at(std::int64_t step) const;

  // Passes over the stage's data before `step`, as a fraction.
  double epoch_at(std::int64_t step) const;

 private:
  struct Place {
    std::int64_t stage, epoch, step_in_epoch;
  };
  Place find(std::int64_t step) const;
  std::int64_t steps_per_epoch(std::int64_t stage) const;
  std::vector<std::int64_t> order_of(std::int64_t stage, std::int64_t epoch) const;

  std::vector<StageSize> stages_;
  std::int64_t samples_per_step_;
  bool shuffle_;
  std::uint64_t seed_;
};

// Random streams of a run, told apart in mix_seed.
enum Stream : std::uint64_t { kOrderStream = 1, kAugmentStream, kDropoutStream, kWeightStream };

// Mixes numbers into one seed (splitmix64), so that neighbouring steps or samples draw unrelated
// numbers.
std::uint64_t mix_seed(std::uint64_t a, std::uint64_t b, std::uint64_t c = 0);

}  // namespace vlm::train

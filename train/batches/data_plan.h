// Which samples each optimizer step takes: a pure function of seed and step, so that a resumed run
// goes on exactly.
//
// Steps run through the stages; within a stage every epoch is a new seeded order, and an epoch's
// last step may be short. Samples of one group (those about the same pictures) can be kept next to
// each other, so that they meet in a step; or samples of similar length, so that batches have
// little padding (as transformers' LengthGroupedSampler: sorted within 50 batches, the longest
// first of all).
//
// Tables are read a block at a time, and a shuffled epoch mustn't read each block once a sample:
// the blocks are shuffled and taken in windows of up to kWindowBytes, and samples are shuffled
// within a window. Neighbours in a window come from the same few blocks, so an epoch is less random
// than a shuffle of everything; samples of other files are spread over all windows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "data/formats/row_block.h"
#include "train/batches/mixture.h"

namespace vlm::train {

struct StageSize {
  std::int64_t samples = 0;           // of an epoch
  std::int64_t steps = 0;             // of this stage
  std::vector<MixPart> mixture = {};  // its files; empty: an epoch takes every sample once
  // Of each sample of the data set:
  std::vector<std::int64_t> groups = {};   // number of its group; empty: none are kept together
  std::vector<std::int64_t> lengths = {};  // empty: they don't count
  // Of the data set's samples in order: those that are read as a whole (row groups of tables). An
  // epoch then takes them a few blocks at a time; empty: any sample is as quick to read.
  std::vector<data::RowBlock> blocks = {};
};

// Memory of the blocks that an epoch goes through together; half of what is kept of tables.
inline constexpr std::int64_t kWindowBytes = 256LL << 20;

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
  DataPlan(const DataPlan&) = delete;
  DataPlan& operator=(const DataPlan&) = delete;

  std::int64_t total_steps() const;
  StepPlan at(std::int64_t step) const;

  // Passes over the stage's data before `step`, as a fraction.
  double epoch_at(std::int64_t step) const;
  // Passes that the first `steps` steps have made, as a fraction: where a stage ends, its own.
  double epoch_behind(std::int64_t steps) const;

 private:
  struct Place {
    std::int64_t stage, epoch, step_in_epoch;
  };
  Place find(std::int64_t step) const;
  std::int64_t steps_per_epoch(std::int64_t stage) const;
  using Order = std::vector<std::int64_t>;
  std::shared_ptr<const Order> order_of(std::int64_t stage, std::int64_t epoch) const;
  Order make_order(std::int64_t stage, std::int64_t epoch) const;

  std::vector<StageSize> stages_;
  std::int64_t samples_per_step_;
  bool shuffle_;
  std::uint64_t seed_;

  // The order asked for last: steps of an epoch ask for the same one. It is shared, not copied: one
  // of ten million samples is 80 MB.
  mutable std::mutex mutex_;
  mutable std::int64_t last_stage_ = -1, last_epoch_ = -1;
  mutable std::shared_ptr<const Order> last_order_;
};

// Random streams of a run, told apart in mix_seed.
enum Stream : std::uint64_t { kOrderStream = 1, kAugmentStream, kDropoutStream, kWeightStream };

// Mixes numbers into one seed (splitmix64), so that neighbouring steps or samples draw unrelated
// numbers.
std::uint64_t mix_seed(std::uint64_t a, std::uint64_t b, std::uint64_t c = 0);

}  // namespace vlm::train

// Which samples each optimizer step uses: a pure function of seed and step, so that a resumed run
// continues exactly.
//
// Steps run through the stages; within a stage every epoch is a new seeded order, and an epoch's
// last step may be short. Samples of one group (those about the same pictures) can be kept next to
// each other, so that they fall into the same step; or samples of similar length, so that batches
// have little padding (as transformers' LengthGroupedSampler: sorted within 50 batches, the longest
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
  std::vector<MixPart> mixture = {};  // the weighted files; empty: an epoch uses every sample once
  // Of each sample of the data set:
  std::vector<std::int64_t> groups = {};  // number of its group; empty: groups aren't kept together
  std::vector<std::int64_t> lengths = {};  // in tokens; empty: not grouped by length
  // The blocks of samples that are read as a whole (row groups of tables), in order. An epoch then
  // goes through a few blocks at a time. Empty: every sample can be read alone.
  std::vector<data::RowBlock> blocks = {};
};

// Bytes of the blocks in a window; half of the memory that tables may use.
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
  // Passes over the stage's data that the first `steps` steps make, as a fraction. At the end of a
  // stage it counts that stage, not the next.
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

  // The last order that was made, as all steps of an epoch use the same one. It is shared and not
  // copied: that of ten million samples has 80 MB.
  mutable std::mutex mutex_;
  mutable std::int64_t last_stage_ = -1, last_epoch_ = -1;
  mutable std::shared_ptr<const Order> last_order_;
};

// Numbers for mix_seed that give each use of random numbers its own stream.
enum Stream : std::uint64_t { kOrderStream = 1, kAugmentStream, kDropoutStream, kWeightStream };

// Mixes numbers into one seed (splitmix64), so that neighbouring steps or samples draw unrelated
// numbers.
std::uint64_t mix_seed(std::uint64_t a, std::uint64_t b, std::uint64_t c = 0);

}  // namespace vlm::train

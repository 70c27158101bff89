// The batches of the next optimizer steps, prepared in threads: read, decoded, tokenized and
// packed.
//
//   DataPlan + datasets + Processor ─► (threads: one sample at a time) ─► (a thread: the samples of
//   a step become batches) ─► StepLoader::next() ─► micro-batches of one step
//
// Steps come in order and are the same whatever the number of threads. Pictures whose features are
// known are not decoded.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "data/batch.h"
#include "data/dataset.h"
#include "data/packing.h"
#include "train/batches/data_plan.h"
#include "vlm/io/ordered_workers.h"

namespace vlm::train {

struct StepData {
  std::vector<data::Batch> batches;  // one a forward pass
  std::int64_t label_count = 0;      // over all of them
  std::int64_t sample_count = 0;     // of the step over all processes; others of this one
  std::int64_t token_count = 0;      // without padding; a shared prefix once
  std::int64_t slot_count = 0;       // with padding
  std::int64_t tile_count = 0;       // each picture of a batch once
};

struct LoaderOptions {
  std::int64_t batch_size = 1;
  std::int64_t pad_id = 0;
  data::EncodeOptions encode;  // its seed is set for each sample from `seed`
  std::uint64_t seed = 0;
  std::int64_t workers = 1;
  data::SkippedSamples* skipped = nullptr;
  std::optional<data::PackOptions> packing;  // in place of rows of batch_size samples
  // For a GPU: what is copied to it lies in memory from which it copies while the host goes on, the
  // pictures in this dtype.
  std::optional<at::ScalarType> pinned_dtype;
  // Of each step, process `rank` uses every `ranks`-th group of batch_size samples.
  std::int64_t rank = 0, ranks = 1;
};

// Of a step's samples those of process `rank`: every `ranks`-th group of `batch_size`.
std::vector<std::int64_t> share_of(const std::vector<std::int64_t>& samples,
                                   std::int64_t batch_size, std::int64_t rank, std::int64_t ranks);

class StepLoader {
 public:
  // The datasets (one a stage), the processor and what the options point to must outlive the
  // loader.
  StepLoader(const DataPlan& plan, const std::vector<std::unique_ptr<data::Dataset>>& datasets,
             const Processor& processor, const LoaderOptions& options, std::int64_t first_step);

  // The next step's batches. If a sample of the step failed, throws the exception of the first one,
  // also in later calls. Throws Error after the last step.
  StepData next();

 private:
  // One sample of this process's share of a step; nothing of a step in which it has none.
  struct Job {
    std::shared_ptr<const StepPlan> plan;  // of the share
    std::size_t place = 0;
    std::int64_t sample_count = 0;  // of the step, over all processes

    bool ends_step() const { return place + 1 >= plan->samples.size(); }
  };
  struct Sample {
    std::optional<data::Example> example;
    std::int64_t sample_count = 0;
    bool ends_step = false;
  };
  using Samples = OrderedWorkers<Job, Sample>;
  using Steps = OrderedWorkers<std::int64_t, StepData>;

  std::optional<Job> open_sample();
  Sample read(const Job& job) const;
  void allow_samples(std::int64_t step);
  void make_step(std::int64_t step, Steps::Output& output);

  const DataPlan& plan_;
  const std::vector<std::unique_ptr<data::Dataset>>& datasets_;
  const Processor& processor_;
  const LoaderOptions options_;

  // Written by the thread that opens samples (one at a time); other threads only read the number.
  std::atomic<std::int64_t> next_to_open_;
  Job next_job_;
  // Samples of the steps before this one may be opened.
  std::atomic<std::int64_t> open_end_;
  // Used by the thread that makes steps.
  std::int64_t next_to_make_;
  std::int64_t step_bytes_ = 0;  // of pictures in the step made last
  Samples samples_;
  Steps steps_;  // takes from the samples
};

}  // namespace vlm::train

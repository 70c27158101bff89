// Optimizer steps' batches, read, decoded, tokenized and packed ahead in threads.
//
//   DataPlan + datasets + Processor ─► (threads: one sample at a time) ─► StepLoader::next() ─►
//   micro-batches of one step
//
// Steps come in order and are the same whatever the number of threads. Pictures whose features are
// known are not decoded.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/batch.h"
#include "data/dataset.h"
#include "data/packing.h"
#include "train/batches/data_plan.h"

namespace vlm::train {

struct StepData {
  std::vector<data::Batch> batches;  // one a forward pass
  std::int64_t label_count = 0;      // over all of them
  std::int64_t sample_count = 0;     // of the step, over all processes; the rest is this one's
  std::int64_t token_count = 0;      // without padding; a shared prefix once
  std::int64_t slot_count = 0;       // with padding
  std::int64_t tile_count = 0;       // each picture of a batch once
};

struct LoaderOptions {
  std::int64_t batch_size = 1;
  std::int64_t pad_id = 0;
  data::EncodeOptions encode;  // their seed comes from the next
  std::uint64_t seed = 0;
  std::int64_t workers = 1;
  data::SkippedSamples* skipped = nullptr;
  std::optional<data::PackOptions> packing;  // in place of rows of batch_size samples
  // Of several processes each takes every so many-th run of batch_size samples of a step.
  std::int64_t rank = 0, ranks = 1;
};

class StepLoader {
 public:
  // The datasets (one a stage), the processor and what the options point to must outlive the
  // loader.
  StepLoader(const DataPlan& plan, const std::vector<std::unique_ptr<data::Dataset>>& datasets,
             const Processor& processor, const LoaderOptions& options, std::int64_t first_step);
  ~StepLoader();
  StepLoader(const StepLoader&) = delete;
  StepLoader& operator=(const StepLoader&) = delete;

  // The next step's batches; rethrows what the threads met in it, of its first bad sample.
  StepData next();

 private:
  // A step whose samples are being encoded.
  struct Opened {
    StepPlan plan;                  // of this process's share
    std::int64_t sample_count = 0;  // of the whole step
    std::vector<data::Example> examples;
    std::vector<std::exception_ptr> failures;
    std::size_t claimed = 0, done = 0;
  };
  struct Made {
    StepData data;
    std::exception_ptr failure;
  };

  void work();
  Opened* find_work();
  data::Example encode(const StepPlan& plan, std::size_t place) const;
  Made make(Opened opened) const;

  const DataPlan& plan_;
  const std::vector<std::unique_ptr<data::Dataset>>& datasets_;
  const Processor& processor_;
  const LoaderOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, Opened> opened_;  // by step
  std::map<std::int64_t, Made> ready_;
  std::int64_t next_to_open_, next_to_hand_out_;
  std::int64_t step_bytes_ = 0;  // of pictures in the step made last
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vlm::train

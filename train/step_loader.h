// Optimizer steps' batches, read, decoded and tokenized ahead in a thread.
//
//   DataPlan + datasets + Processor ─► StepLoader::next() ─► micro-batches of one step
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/batch.h"
#include "data/dataset.h"
#include "train/data_plan.h"

namespace vlm::train {

struct StepData {
  std::vector<data::Batch> batches;  // one a forward pass
  std::int64_t label_count = 0;      // over all of them
  std::int64_t sample_count = 0;
};

struct LoaderOptions {
  std::int64_t batch_size = 1;
  std::int64_t max_length = 0;
  std::int64_t pad_id = 0;
  data::AugmentConfig augmentation;
  data::VideoSampling video;
  std::uint64_t seed = 0;
};

class StepLoader {
 public:
  // The datasets (one a stage) and the processor must outlive the loader.
  StepLoader(const DataPlan& plan, const std::vector<std::unique_ptr<data::Dataset>>& datasets,
             const Processor& processor, const LoaderOptions& options, std::int64_t first_step);
  ~StepLoader();
  StepLoader(const StepLoader&) = delete;
  StepLoader& operator=(const StepLoader&) = delete;

  // The next step's batches; rethrows what the thread met.
  StepData next();

 private:
  void run(std::int64_t first_step);
  StepData make(std::int64_t step) const;

  const DataPlan& plan_;
  const std::vector<std::unique_ptr<data::Dataset>>& datasets_;
  const Processor& processor_;
  LoaderOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StepData> ready_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace vlm::train

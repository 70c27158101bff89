#include "train/step_loader.h"

#include <algorithm>

namespace vlm::train {
namespace {

constexpr std::size_t kStepsAhead = 2;

}  // namespace

StepLoader::StepLoader(const DataPlan& plan,
                       const std::vector<std::unique_ptr<data::Dataset>>& datasets,
                       const Processor& processor, const LoaderOptions& options,
                       std::int64_t first_step)
    : plan_(plan), datasets_(datasets), processor_(processor), options_(options) {
  thread_ = std::thread([this, first_step] { run(first_step); });
}

StepLoader::~StepLoader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

StepData StepLoader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
  if (ready_.empty()) std::rethrow_exception(failure_);
  StepData step = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return step;
}

void StepLoader::run(std::int64_t first_step) {
  try {
    for (std::int64_t step = first_step; step < plan_.total_steps(); ++step) {
      StepData made = make(step);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || ready_.size() < kStepsAhead; });
      if (stopping_) return;
      ready_.push_back(std::move(made));
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    changed_.notify_all();
  }
}

StepData StepLoader::make(std::int64_t step) const {
  const StepPlan plan = plan_.at(step);
  const data::Dataset& dataset = *datasets_.at(static_cast<std::size_t>(plan.stage));
  StepData made{.sample_count = static_cast<std::int64_t>(plan.samples.size())};
  const auto batch_size = static_cast<std::size_t>(options_.batch_size);
  for (std::size_t begin = 0; begin < plan.samples.size(); begin += batch_size) {
    std::vector<data::Example> examples;
    for (std::size_t i = begin; i < std::min(begin + batch_size, plan.samples.size()); ++i) {
      const std::int64_t index = plan.samples[i];
      const data::EncodeOptions options{
          .max_length = options_.max_length,
          .augmentation = options_.augmentation,
          .seed = mix_seed(options_.seed, static_cast<std::uint64_t>(plan.stage << 32 | plan.epoch),
                           static_cast<std::uint64_t>(index)),
          .video = options_.video};
      examples.push_back(data::encode_example(dataset.at(index), processor_, options));
    }
    made.batches.push_back(data::collate(examples, options_.pad_id));
    made.label_count += made.batches.back().label_count;
  }
  return made;
}

}  // namespace vlm::train

#include "train/batches/step_loader.h"

#include <algorithm>

namespace vlm::train {
namespace {

constexpr std::int64_t kStepsAhead = 2;
// Steps with more pixels than this are only made one ahead.
constexpr std::int64_t kManyBytes = 256 << 20;

std::int64_t picture_bytes(const data::Batch& batch) {
  std::size_t bytes = 0;
  for (const auto& pictures : batch.pictures) {
    if (pictures.pixel_values.defined()) bytes += pictures.pixel_values.nbytes();
    if (pictures.features.defined()) bytes += pictures.features.nbytes();
  }
  return static_cast<std::int64_t>(bytes);
}

std::vector<data::Batch> make_batches(const std::vector<data::Example>& examples,
                                      const LoaderOptions& options) {
  if (options.packing) return data::pack(examples, *options.packing);
  std::vector<data::Batch> batches;
  const auto size = static_cast<std::ptrdiff_t>(options.batch_size);
  for (auto begin = examples.begin(); begin != examples.end();) {
    const auto end = begin + std::min(size, examples.end() - begin);
    batches.push_back(data::collate({begin, end}, options.pad_id));
    begin = end;
  }
  return batches;
}

// Leaves the samples of this process.
void take_share(const LoaderOptions& options, std::vector<std::int64_t>& samples) {
  std::vector<std::int64_t> own;
  for (std::int64_t i = 0; i < std::ssize(samples); ++i) {
    const bool is_own = i / options.batch_size % options.ranks == options.rank;
    if (is_own) own.push_back(samples[static_cast<std::size_t>(i)]);
  }
  samples = std::move(own);
}

}  // namespace

StepLoader::StepLoader(const DataPlan& plan,
                       const std::vector<std::unique_ptr<data::Dataset>>& datasets,
                       const Processor& processor, const LoaderOptions& options,
                       std::int64_t first_step)
    : plan_(plan),
      datasets_(datasets),
      processor_(processor),
      options_(options),
      next_to_open_(first_step),
      next_to_hand_out_(first_step) {
  for (std::int64_t i = 0; i < std::max<std::int64_t>(options_.workers, 1); ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

StepLoader::~StepLoader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

StepData StepLoader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_.count(next_to_hand_out_) > 0; });
  Made made = std::move(ready_.extract(next_to_hand_out_).mapped());
  if (made.failure) std::rethrow_exception(made.failure);
  ++next_to_hand_out_;
  changed_.notify_all();
  return std::move(made.data);
}

// A step with samples that nobody has claimed yet; opens the next one when it may.
StepLoader::Opened* StepLoader::find_work() {
  for (auto& [step, opened] : opened_) {
    if (opened.claimed < opened.examples.size()) return &opened;
  }
  const std::int64_t ahead = step_bytes_ > kManyBytes ? 1 : kStepsAhead;
  if (next_to_open_ >= plan_.total_steps() || next_to_open_ - next_to_hand_out_ >= ahead) {
    return nullptr;
  }
  Opened& opened = opened_[next_to_open_];
  opened.plan = plan_.at(next_to_open_++);
  opened.sample_count = std::ssize(opened.plan.samples);
  take_share(options_, opened.plan.samples);
  opened.examples.resize(opened.plan.samples.size());
  opened.failures.resize(opened.plan.samples.size());
  if (!opened.examples.empty()) return &opened;
  // An epoch's short last step has nothing for some processes.
  auto none = opened_.extract(next_to_open_ - 1);
  ready_[none.key()].data.sample_count = none.mapped().sample_count;
  changed_.notify_all();
  return find_work();
}

void StepLoader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    Opened* opened = nullptr;
    changed_.wait(lock, [&] { return stopping_ || (opened = find_work()) != nullptr; });
    if (stopping_) return;
    const std::size_t place = opened->claimed++;  // the map's nodes stay where they are
    lock.unlock();
    try {
      opened->examples[place] = encode(opened->plan, place);
    } catch (...) {
      opened->failures[place] = std::current_exception();
    }
    lock.lock();
    if (++opened->done < opened->examples.size()) continue;
    const auto found = std::find_if(opened_.begin(), opened_.end(),
                                    [&](const auto& entry) { return &entry.second == opened; });
    auto whole = opened_.extract(found);
    lock.unlock();
    Made made = make(std::move(whole.mapped()));
    lock.lock();
    step_bytes_ = 0;
    for (const data::Batch& batch : made.data.batches) step_bytes_ += picture_bytes(batch);
    ready_.emplace(whole.key(), std::move(made));
    changed_.notify_all();
  }
}

data::Example StepLoader::encode(const StepPlan& plan, std::size_t place) const {
  const data::Dataset& dataset = *datasets_.at(static_cast<std::size_t>(plan.stage));
  const std::int64_t index = plan.samples[place];
  data::EncodeOptions options = options_.encode;
  options.seed = mix_seed(options_.seed, static_cast<std::uint64_t>(plan.stage << 32 | plan.epoch),
                          static_cast<std::uint64_t>(index));
  return data::read_example(dataset, index, processor_, options, *options_.skipped);
}

StepLoader::Made StepLoader::make(Opened opened) const {
  Made made;
  for (const std::exception_ptr& failure : opened.failures) {
    if (!failure) continue;
    made.failure = failure;
    return made;
  }
  made.data.sample_count = opened.sample_count;
  made.data.batches = make_batches(opened.examples, options_);
  for (const data::Batch& batch : made.data.batches) {
    made.data.label_count += batch.label_count;
    made.data.token_count += batch.token_count;
    made.data.slot_count += batch.labels.numel();
    for (const auto& pictures : batch.pictures) made.data.tile_count += pictures.tiles();
  }
  return made;
}

}  // namespace vlm::train

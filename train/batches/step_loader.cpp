#include "train/batches/step_loader.h"

#include <algorithm>

#include "vlm/core/error.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kStepsAhead = 2;
// Steps with more pixels than this are only made one ahead.
constexpr std::int64_t kManyBytes = 256 << 20;

std::int64_t picture_bytes(const data::Batch& batch) {
  std::int64_t bytes = 0;
  for (const auto& pictures : batch.pictures) {
    bytes += pictures.pixels.bytes();
    if (pictures.features.defined()) {
      bytes += static_cast<std::int64_t>(pictures.features.nbytes());
    }
  }
  return bytes;
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

void pin(data::Batch& batch, at::ScalarType dtype) {
  batch.inputs.input_ids = batch.inputs.input_ids.pin_memory();
  for (data::SamplePictures& pictures : batch.pictures) {
    at::Tensor &pixels = pictures.pixels.values, &features = pictures.features;
    if (pixels.defined()) pixels = pixels.to(dtype).pin_memory();
    if (features.defined()) features = features.pin_memory();
  }
}

}  // namespace

std::vector<std::int64_t> share_of(const std::vector<std::int64_t>& samples,
                                   std::int64_t batch_size, std::int64_t rank, std::int64_t ranks) {
  std::vector<std::int64_t> share;
  for (std::int64_t i = 0; i < std::ssize(samples); ++i) {
    if (i / batch_size % ranks == rank) share.push_back(samples[static_cast<std::size_t>(i)]);
  }
  return share;
}

StepLoader::StepLoader(const DataPlan& plan,
                       const std::vector<std::unique_ptr<data::Dataset>>& datasets,
                       const Processor& processor, const LoaderOptions& options,
                       std::int64_t first_step)
    : plan_(plan),
      datasets_(datasets),
      processor_(processor),
      options_(options),
      next_to_open_(first_step),
      open_end_(first_step + 1),
      next_to_make_(first_step),
      samples_({.name = "vlm samples", .workers = options.workers},
               {.open = [this] { return open_sample(); },
                .make = [this](const Job& job, auto& output) { output.put(read(job)); },
                .may_open = [this](std::int64_t) { return next_to_open_ < open_end_; }}),
      steps_({.name = "vlm batches", .workers = 1, .ahead = 1},
             {.open = [this]() -> std::optional<std::int64_t> {
                if (next_to_make_ >= plan_.total_steps()) return std::nullopt;
                return next_to_make_++;
              },
              .make = [this](std::int64_t step, auto& output) { make_step(step, output); }}) {}

StepData StepLoader::next() {
  std::optional<StepData> step = steps_.next();
  if (!step) throw Error({.what = "no step is left", .where = "training data"});
  return std::move(*step);
}

std::optional<StepLoader::Job> StepLoader::open_sample() {
  if (!next_job_.plan) {
    if (next_to_open_ >= plan_.total_steps()) return std::nullopt;
    StepPlan plan = plan_.at(next_to_open_);
    const std::int64_t sample_count = std::ssize(plan.samples);
    plan.samples = share_of(plan.samples, options_.batch_size, options_.rank, options_.ranks);
    next_job_ = {.plan = std::make_shared<StepPlan>(std::move(plan)), .sample_count = sample_count};
  }
  const Job job = next_job_;
  ++next_job_.place;
  if (job.ends_step()) {
    next_job_ = {};
    ++next_to_open_;
  }
  return job;
}

StepLoader::Sample StepLoader::read(const Job& job) const {
  Sample sample{.sample_count = job.sample_count, .ends_step = job.ends_step()};
  const StepPlan& plan = *job.plan;
  if (plan.samples.empty()) return sample;
  const data::Dataset& dataset = *datasets_.at(static_cast<std::size_t>(plan.stage));
  const std::int64_t index = plan.samples[job.place];
  data::EncodeOptions options = options_.encode;
  options.seed = mix_seed(options_.seed, static_cast<std::uint64_t>(plan.stage << 32 | plan.epoch),
                          static_cast<std::uint64_t>(index));
  sample.example = data::read_example(dataset, index, processor_, options, *options_.skipped);
  return sample;
}

// Those of `step`, which is made, and of the next one beside it.
void StepLoader::allow_samples(std::int64_t step) {
  open_end_ = step + (step_bytes_ > kManyBytes ? 1 : kStepsAhead);
  samples_.wake();
}

void StepLoader::make_step(std::int64_t step, Steps::Output& output) {
  allow_samples(step);
  StepData data;
  std::vector<data::Example> examples;
  for (bool is_whole = false; !is_whole;) {
    if (!output.is_wanted()) return;
    Sample sample = samples_.next().value();
    if (sample.example) examples.push_back(std::move(*sample.example));
    data.sample_count = sample.sample_count;
    is_whole = sample.ends_step;
  }
  data.batches = make_batches(examples, options_);
  step_bytes_ = 0;
  for (data::Batch& batch : data.batches) {
    if (options_.pinned_dtype) pin(batch, *options_.pinned_dtype);
    data.label_count += batch.label_count;
    data.token_count += batch.token_count;
    data.slot_count += batch.labels.numel();
    for (const auto& pictures : batch.pictures) data.tile_count += pictures.units();
    step_bytes_ += picture_bytes(batch);
  }
  allow_samples(step);
  output.put(std::move(data));
}

}  // namespace vlm::train

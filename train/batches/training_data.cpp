#include "train/batches/training_data.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "data/sample_size.h"
#include "vlm/core/concat.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/core/sha256.h"

namespace vlm::train {
namespace {

// None when every file is taken once an epoch.
std::vector<MixPart> mix_parts(const data::Dataset& dataset) {
  std::vector<MixPart> parts;
  bool is_plain = true;
  for (const data::DatasetPart& part : dataset.parts()) {
    const double draws = std::round(part.weight * static_cast<double>(part.samples));
    parts.push_back({.samples = part.samples,
                     .draws = std::max<std::int64_t>(1, static_cast<std::int64_t>(draws))});
    is_plain = is_plain && part.weight == 1;
  }
  return is_plain ? std::vector<MixPart>{} : parts;
}

// Samples that show the same pictures have the same number.
std::vector<std::int64_t> number_pictures(const data::Dataset& dataset) {
  std::map<std::string, std::int64_t> numbers;
  std::vector<std::int64_t> groups;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    throw_if_stopped();
    std::string key;
    for (const data::MediaRef& medium : dataset.at(i).media) {
      key += concat(medium.bytes ? sha256_hex(*medium.bytes) : medium.name,
                    medium.is_whole ? " whole\n" : "\n");
    }
    // Samples without a picture have nothing to share.
    groups.push_back(key.empty() ? i : numbers.emplace(key, i).first->second);
  }
  return groups;
}

}  // namespace

TrainingData load_training_data(const TrainConfig& config, const Processor& processor,
                                std::int64_t processes) {
  const data::DataOptions options = config.data_options();
  const std::int64_t samples_per_step =
      config.per_device_train_batch_size * config.gradient_accumulation_steps * processes;
  TrainingData loaded;
  std::vector<StageSize> sizes;
  auto stages = config.parse_stages();
  if (stages.empty()) stages.push_back({.train_files = config.train_files});
  for (const Stage& stage : stages) {
    loaded.datasets.push_back(data::load_datasets(stage.train_files, options));
    const std::vector<MixPart> parts = mix_parts(*loaded.datasets.back());
    std::int64_t samples = loaded.datasets.back()->size();
    if (!parts.empty()) samples = count_draws(parts);
    std::int64_t steps = stage.steps > 0 ? stage.steps : config.max_steps;
    if (steps < 0) {
      const std::int64_t per_epoch = (samples + samples_per_step - 1) / samples_per_step;
      steps = static_cast<std::int64_t>(
          std::ceil(config.num_train_epochs * static_cast<double>(per_epoch)));
    }
    const data::Dataset& dataset = *loaded.datasets.back();
    sizes.push_back(
        {.samples = samples, .steps = steps, .mixture = parts, .blocks = dataset.blocks()});
    if (config.share_pictures) sizes.back().groups = number_pictures(dataset);
    loaded.groups.push_back(sizes.back().groups);
    if (config.group_by_length) {
      const auto measured = data::measure_samples(dataset, processor, config.measure_options());
      for (const data::SampleSize& size : measured) sizes.back().lengths.push_back(size.tokens);
    }
  }
  if (!config.eval_files.empty()) {
    loaded.eval_dataset = data::load_datasets(config.eval_files, options);
  }
  loaded.plan =
      std::make_unique<DataPlan>(sizes, samples_per_step, config.shuffle,
                                 mix_seed(static_cast<std::uint64_t>(config.seed), kOrderStream));
  return loaded;
}

}  // namespace vlm::train

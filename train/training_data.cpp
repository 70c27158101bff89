#include "train/training_data.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "data/sample_size.h"

namespace vlm::train {

namespace {

// Samples that show the same pictures have the same number.
std::vector<std::int64_t> number_pictures(const data::Dataset& dataset) {
  std::map<std::vector<std::filesystem::path>, std::int64_t> numbers;
  std::vector<std::int64_t> groups;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    const auto images = dataset.at(i).images;
    // Samples without a picture have nothing to share.
    groups.push_back(images.empty() ? i : numbers.emplace(images, i).first->second);
  }
  return groups;
}

}  // namespace

TrainingData load_training_data(const TrainConfig& config, const Processor& processor,
                                std::int64_t processes) {
  const data::FolderOptions folder{.text_column = config.text_column, .prompt = config.prompt};
  const std::int64_t samples_per_step =
      config.per_device_train_batch_size * config.gradient_accumulation_steps * processes;
  TrainingData loaded;
  std::vector<StageSize> sizes;
  auto stages = config.parse_stages();
  if (stages.empty()) stages.push_back({.train_files = config.train_files});
  for (const Stage& stage : stages) {
    loaded.datasets.push_back(data::load_datasets(stage.train_files, folder));
    const std::int64_t samples = loaded.datasets.back()->size();
    std::int64_t steps = stage.steps > 0 ? stage.steps : config.max_steps;
    if (steps < 0) {
      const std::int64_t per_epoch = (samples + samples_per_step - 1) / samples_per_step;
      steps = static_cast<std::int64_t>(
          std::ceil(config.num_train_epochs * static_cast<double>(per_epoch)));
    }
    sizes.push_back({.samples = samples, .steps = steps});
    const data::Dataset& dataset = *loaded.datasets.back();
    if (config.share_pictures) sizes.back().groups = number_pictures(dataset);
    loaded.groups.push_back(sizes.back().groups);
    if (config.group_by_length) {
      const auto measured =
          data::measure_samples(dataset, processor, config.dataloader_num_workers);
      for (const data::SampleSize& size : measured) sizes.back().lengths.push_back(size.tokens);
    }
  }
  if (!config.eval_files.empty()) {
    loaded.eval_dataset = data::load_datasets(config.eval_files, folder);
  }
  loaded.plan =
      std::make_unique<DataPlan>(sizes, samples_per_step, config.shuffle,
                                 mix_seed(static_cast<std::uint64_t>(config.seed), kOrderStream));
  return loaded;
}

}  // namespace vlm::train

#include "train/training_data.h"

#include <cmath>

namespace vlm::train {

TrainingData load_training_data(const TrainConfig& config) {
  const data::FolderOptions folder{.text_column = config.text_column, .prompt = config.prompt};
  const std::int64_t samples_per_step =
      config.per_device_train_batch_size * config.gradient_accumulation_steps;
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
  }
  if (!config.eval_files.empty()) {
    loaded.eval_dataset = data::load_datasets(config.eval_files, folder);
  }
  loaded.plan =
      std::make_unique<DataPlan>(sizes, samples_per_step, config.shuffle,
                                 mix_seed(static_cast<std::uint64_t>(config.seed), kOrderStream));
  return loaded;
}

Schedule make_schedule(const TrainConfig& config, std::int64_t total_steps) {
  const auto by_ratio =
      static_cast<std::int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(total_steps)));
  return {.type = config.lr_scheduler_type,
          .learning_rate = config.learning_rate,
          .warmup_steps = config.warmup_steps > 0 ? config.warmup_steps : by_ratio,
          .total_steps = total_steps};
}

}  // namespace vlm::train

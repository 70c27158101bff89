// The one fine-tuning loop: model, data and config in; adapter or checkpoint, metrics and
// checkpoints out.
//
//   TrainConfig ─► Trainer::run: plan → batches → loss → backward → clip → step → log, evaluate,
//   save
//
// Methods differ in which parameters require gradients (parameters.h) and in how the base is
// stored, nothing else. A run that was cut off goes on from its last checkpoint and ends as an
// uninterrupted one would: order, augmentation and dropout are functions of the seed and the step.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/dataset.h"
#include "train/data_plan.h"
#include "train/metrics_log.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/train_config.h"
#include "train/training_state.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"
#include "vlm/nn/runtime.h"

namespace vlm::train {

struct TrainOptions {
  RuntimeOptions runtime;
  bool restart = false;  // ignore checkpoints in output_dir
};

struct StepData;

enum class TrainResult { kFinished, kInterrupted };

class Trainer {
 public:
  // Loads model and data. Throws Error for whatever doesn't fit.
  Trainer(TrainConfig config, const TrainOptions& options);
  ~Trainer();

  // Trains to the end, or until stop_requested(); then a checkpoint is left to go on from.
  TrainResult run();

 private:
  void load_model_and_adapter(at::Device device);
  void choose_trainable();
  void load_data();
  void resume();
  double train_step(StepData& data, double& grad_norm);
  double evaluate();
  void log_step(double loss, double grad_norm, std::int64_t samples);
  void save_result(const std::filesystem::path& folder) const;

  TrainConfig config_;
  TrainOptions options_;
  OrderedJson effective_config_;
  std::filesystem::path model_folder_;
  std::shared_ptr<VisionLanguageModel> model_;
  std::unique_ptr<Processor> processor_;
  LoraConfig lora_;
  std::vector<std::unique_ptr<data::Dataset>> datasets_;  // one a stage
  std::unique_ptr<data::Dataset> eval_dataset_;
  std::unique_ptr<DataPlan> plan_;
  Schedule schedule_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<MetricsLog> metrics_;
  TrainingState state_;
  std::int64_t samples_since_log_ = 0;
  std::chrono::steady_clock::time_point last_log_;
};

}  // namespace vlm::train

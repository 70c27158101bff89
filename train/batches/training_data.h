// The data of a run: one data set a stage, the evaluation set, and which samples each step takes.
//
//   TrainConfig ─► load_training_data ─► data sets, DataPlan
//
// Files are listed and indexed here; samples are read when a step needs them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/dataset.h"
#include "train/batches/data_plan.h"
#include "train/config/train_config.h"
#include "vlm/models/interface/processor.h"

namespace vlm::train {

struct TrainingData {
  std::vector<std::unique_ptr<data::Dataset>> datasets;  // one a stage
  std::unique_ptr<data::Dataset> eval_dataset;           // null without eval_files
  std::unique_ptr<DataPlan> plan;
  // Of each stage: the number of the pictures that a sample shows; empty unless they are shared.
  std::vector<std::vector<std::int64_t>> groups;
};

// `processes` share the samples of a step. Throws Error for files that are missing, empty or
// malformed. Reads every sample where share_pictures or group_by_length ask for it, and their
// pictures' sizes for the latter.
TrainingData load_training_data(const TrainConfig& config, const Processor& processor,
                                std::int64_t processes = 1);

}  // namespace vlm::train

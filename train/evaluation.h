// The evaluation loss: mean cross entropy over every label of a data set, without augmentation and
// dropout.
#pragma once

#include <cstdint>

#include "data/dataset.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::train {

struct EvaluationOptions {
  std::int64_t batch_size = 1;
  std::int64_t max_length = 0;
};

// The model is in training mode before and after.
double evaluate_loss(VisionLanguageModel& model, const Processor& processor,
                     const data::Dataset& dataset, const EvaluationOptions& options);

}  // namespace vlm::train

// The evaluation loss: mean cross entropy over every label of a data set, without augmentation and
// dropout.
#pragma once

#include <cstdint>

#include "data/batch.h"
#include "data/dataset.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::train {

class PictureStore;

struct EvaluationOptions {
  std::int64_t batch_size = 1;
  data::EncodeOptions encode;  // without augmentation
  data::SkippedSamples* skipped = nullptr;
  PictureStore* pictures = nullptr;  // where features come from; null: from the model
};

// The model is in training mode before and after. Samples that may be skipped are left out.
double evaluate_loss(VisionLanguageModel& model, const Processor& processor,
                     const data::Dataset& dataset, const EvaluationOptions& options);

}  // namespace vlm::train

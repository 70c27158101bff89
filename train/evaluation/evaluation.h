// The evaluation loss: cross entropy over every label of a data set, without augmentation and
// dropout. Of several ranks each takes every so many-th batch.
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
  std::int64_t rank = 0, ranks = 1;
};

struct LossSum {
  double loss = 0;  // summed over the labels
  std::int64_t labels = 0;
};

// The model is in evaluation mode before and after. Samples that may be skipped are left out.
LossSum evaluate_loss(VisionLanguageModel& model, const Processor& processor,
                      const data::Dataset& dataset, const EvaluationOptions& options);

}  // namespace vlm::train

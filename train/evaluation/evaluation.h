// The evaluation loss: cross entropy over every label of a data set, without augmentation and
// dropout.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "vlm/models/interface/model.h"

namespace vlm::train {

class PictureStore;

struct LossSum {
  double loss = 0;  // summed over the labels
  std::int64_t labels = 0;
};

// Adds the loss of some samples, computed as one batch. The model is in evaluation mode.
void add_loss(VisionLanguageModel& model, const std::vector<data::Example>& examples,
              PictureStore& pictures, LossSum& sum);

}  // namespace vlm::train

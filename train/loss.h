// The language-model loss, with the head run only where there is a label.
#pragma once

#include <ATen/core/Tensor.h>

#include "data/batch.h"
#include "vlm/models/model.h"

namespace vlm::train {

// Sum of the cross entropies at labelled positions, float32 scalar. Divide by the number of labels
// of the whole optimizer step, as transformers does, so that accumulation changes nothing.
at::Tensor loss_sum(VisionLanguageModel& model, const data::Batch& batch);

}  // namespace vlm::train

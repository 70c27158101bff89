// Config keys of other trainers → an error that names our key.
//
//   "micro_batch_size" (axolotl) ─► Error: it is per_device_train_batch_size here
#pragma once

#include "vlm/core/json.h"

namespace vlm::train {

// Throws Error for a top-level key that axolotl, LLaMA-Factory, ms-swift, TRL or Unsloth use for
// one of our keys. Other keys are ignored here.
void refuse_foreign_keys(const OrderedJson& config);

}  // namespace vlm::train

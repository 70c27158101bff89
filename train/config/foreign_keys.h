// Names that other trainers' configs have for our keys.
//
//   "micro_batch_size" (axolotl) ─► Error: it is per_device_train_batch_size here
#pragma once

#include "vlm/core/json.h"

namespace vlm::train {

// Throws Error for a top-level key that another trainer (axolotl, LLaMA-Factory, ms-swift, TRL,
// Unsloth) has for one of ours, and names ours. Other keys are not looked at.
void refuse_foreign_keys(const OrderedJson& config);

}  // namespace vlm::train

// The keys of a run's config that are its adapter's.
#pragma once

#include "train/config/train_config.h"

namespace vlm::train {

// Throws Error for a key that isn't right or has no effect beside the others. What needs the model
// to be known (names of modules) is checked when the adapter is attached.
void check_adapter_keys(const TrainConfig& config);

}  // namespace vlm::train

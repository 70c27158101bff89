// Checks of the config's keys about the adapter.
#pragma once

#include "train/config/train_config.h"

namespace vlm::train {

// Throws Error for a key that is wrong, or has no effect together with the others. Names of modules
// are checked later, when the adapter is attached to the model.
void check_adapter_keys(const TrainConfig& config);

}  // namespace vlm::train

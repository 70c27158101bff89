// The config that a run really uses, for train_config.json, reports and checkpoints.
//
//   TrainConfig ─► effective_config ─► every key with the value that is used
//
// If a starting `adapter` is given, the LoRA keys are those of that adapter, and keys without a
// meaning are left out. The result can be loaded as a config file.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "train/config/train_config.h"
#include "vlm/core/json.h"

namespace vlm::train {

// Throws Error for an adapter that can't be read.
OrderedJson effective_config(TrainConfig config);

}  // namespace vlm::train

// What a run is really made with, as train_config.json, the reports and checkpoints tell it.
//
//   TrainConfig ─► effective_config ─► every key with the value that counts
//
// Where a starting `adapter` is given, the LoRA keys are that adapter's, not the config's, and keys
// that then mean nothing are left out. The result loads as a config file again.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "train/config/train_config.h"
#include "vlm/core/json.h"

namespace vlm::train {

// Throws Error for an adapter that can't be read.
OrderedJson effective_config(TrainConfig config);

}  // namespace vlm::train

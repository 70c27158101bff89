// Which parameters a run trains, and with which learning rates.
//
//   model + config ─► choose_parameters ─► names and tensors that require gradients, with factors
//   of the learning rate
//
// full: every weight. lora, qlora and dora: the parameters of the adapter (vlm/nn/lora/lora.h).
// `freeze` excludes parts of the model from both. A factor comes from the part's own rate
// (vision_lr, …) and from loraplus_lr_ratio, which is for B and for vectors (adapters on embeddings
// get 1e-6), as peft 0.21's create_loraplus_optimizer has it.
#pragma once

#include <cstdint>
#include <vector>

#include "train/config/train_config.h"
#include "vlm/io/safetensors.h"
#include "vlm/models/interface/model.h"

namespace vlm::train {

struct TrainedParameters {
  NamedTensors parameters;
  std::vector<double> rate_factors;  // one for each of `parameters`
};

// Sets requires_grad on all parameters of the model. `lora` is the adapter's config, not used for
// method full. Throws Error when nothing is trained, or when a part with its own learning rate has
// no trained parameter.
TrainedParameters choose_parameters(VisionLanguageModel& model, const TrainConfig& config,
                                    const LoraConfig& lora);

// Numbers in the model's parameters, adapters included; a shared one counts under each name.
std::int64_t count_parameters(const VisionLanguageModel& model);

}  // namespace vlm::train

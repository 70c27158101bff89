// The files that hold a model's weights: safetensors, of numbers or packed, or GGUF.
#pragma once

#include <filesystem>
#include <memory>

#include "vlm/models/parts/coded_tensors.h"

namespace vlm {

// What a checkpoint folder's weights are loaded from. Throws Error as Checkpoint and GgufWeights.
std::unique_ptr<TensorSource> open_weights(const std::filesystem::path& folder);

}  // namespace vlm

// A checkpoint folder → a model, by config.json's model_type. A new family adds one line to the
// table in registry.cpp.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm {

struct LoadOptions {
  // "auto": what config.json names, except that a CPU computes bfloat16 and float16 checkpoints in
  // float32.
  std::string dtype = "auto";
  at::Device device = at::kCPU;
  // On a CPU in float32: projections and embeddings that are stored in bfloat16 stay so. They hold
  // the same numbers, and take half the memory and half the time to read. For models that are only
  // run: such weights take no gradients, and adding to them would round.
  bool keep_bfloat16 = false;
  // For training adapters on a frozen base: linear layers but the output head are stored in NF4 as
  // they are read, so that the whole model is never in memory, the other matrices in bfloat16.
  // `is_trained` (null: none) names the modules that are to stay as they are.
  bool quantize_nf4 = false;
  std::function<bool(const std::string& module)> is_trained = {};
};

// The model of config.json with uninitialised weights, on the CPU in float32.
ModelPtr make_model(const std::filesystem::path& folder);

// The model with the folder's weights, in evaluation mode.
ModelPtr load_model(const std::filesystem::path& folder, const LoadOptions& options);

// The processor that belongs to the model.
std::unique_ptr<Processor> load_processor(const std::filesystem::path& folder);

// Writes the weights, and copies every side file (config, tokenizer, …) of `source`. config.json's
// dtype is updated.
void save_model(const VisionLanguageModel& model, const std::filesystem::path& source,
                const std::filesystem::path& folder);

}  // namespace vlm

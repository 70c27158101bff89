// The model of a run: base, adapter, trained parameters, and how the result is saved.
//
//   TrainConfig ─► load_trained_model ─► model on its device with gradients where something is
//   learned ─► … ─► save_trained_model ─► PEFT adapter, or a whole checkpoint
//
// Methods differ in which parameters require gradients (parameters.h) and in how the base is
// stored.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>

#include "train/config/train_config.h"
#include "train/model/parameters.h"
#include "train/optimizer/optimizer.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"
#include "vlm/models/registry.h"
#include "vlm/nn/frozen_linear.h"
#include "vlm/nn/lora/narrow_adapters.h"
#include "vlm/nn/runtime.h"

namespace vlm::train {

struct TrainedModel {
  std::filesystem::path folder;  // of the base
  ModelPtr model;
  std::unique_ptr<Processor> processor;
  LoraConfig lora;            // unless every weight is trained
  TrainedParameters trained;  // parameters that require gradients; a tied one once
  // On a GPU: the adapters' copies, to be refreshed before each step, and the block of an NF4 base
  // that was expanded last; else null.
  std::shared_ptr<NarrowAdapters> narrow_adapters = {};
  std::shared_ptr<WideBlock> wide_block = {};

  // Frees what can be made again.
  void release() const;
};

// Options for loading the base: dtype, quantization.
LoadOptions base_options(const TrainConfig& config, const LoraConfig& lora,
                         const RuntimeOptions& runtime, at::Device device);

// Throws Error for what doesn't fit: a missing model, no module that matches, nothing to train.
TrainedModel load_trained_model(const TrainConfig& config, const RuntimeOptions& runtime,
                                at::Device device);

// Sets training mode, except for modules in which nothing is trained: they run without dropout, so
// that their output is the same whether it is computed or read from a cache.
void begin_training(const TrainedModel& trained);

std::unique_ptr<Optimizer> make_optimizer(const TrainConfig& config, const TrainedModel& trained);

// Writes the result of the run (adapter or checkpoint) into `folder`.
void save_trained_model(const TrainedModel& trained, const TrainConfig& config,
                        const std::filesystem::path& folder);

}  // namespace vlm::train

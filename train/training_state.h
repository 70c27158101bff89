// Checkpoints of a run: output_dir/checkpoint-N with weights, optimizer state and the trainer's own
// numbers.
//
// A checkpoint is written beside its place and renamed, so that a run cut off while saving still
// has the one before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "train/optimizer.h"
#include "vlm/core/json.h"

namespace vlm::train {

// What goes on besides weights and optimizer.
struct TrainingState {
  std::int64_t step = 0;      // optimizer steps done
  double loss_since_log = 0;  // sum of the losses of the steps since the last row of metrics
  std::int64_t steps_since_log = 0;
};

struct CheckpointWriter {
  std::filesystem::path output_dir;
  OrderedJson config;  // effective; a resumed run must have the same
  std::int64_t save_total_limit = 2;
  std::function<void(const std::filesystem::path&)> save_weights;

  // Writes checkpoint-<step> and removes the oldest beyond the limit.
  void save(const TrainingState& state, const Optimizer& optimizer) const;
};

// The newest whole checkpoint of a folder, if any.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& output_dir);

// Reads the state of a checkpoint. Throws Error naming the keys when it was made by another config.
TrainingState load_training_state(const std::filesystem::path& checkpoint,
                                  const OrderedJson& config);

}  // namespace vlm::train

// Checkpoints of a run: output_dir/checkpoint-N with weights, optimizer state and the trainer's own
// numbers.
//
//   CheckpointWriter::save ─► weights, optimizer.safetensors, inputs.json, trainer_state.json (the
//   state, the config, a digest of each tensor file) ─► find_checkpoint ─► load_training_state
//
// A checkpoint is also what the run would have left as its result at that step: of an adapter the
// PEFT folder, beside the parameters as they are (trained.safetensors); of a full training the
// whole model, whose weights are then the only ones. So `--adapter`, `--model` and PEFT load it.
//
// A checkpoint is written beside its place, synced to the disk and renamed; one that is removed is
// renamed first. So whatever ends a run, what bears the name checkpoint-N was whole once, and what
// a disk did to it since is found by its digests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/optimizer/optimizer.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/json.h"

namespace vlm::train {

// What goes on besides weights and optimizer.
struct TrainingState {
  std::int64_t step = 0;  // optimizer steps done
  // Sums over the steps since the last row of metrics.
  double loss_since_log = 0;
  std::int64_t steps_since_log = 0;
  std::int64_t samples_since_log = 0, tokens_since_log = 0, slots_since_log = 0;
  double data_wait_since_log = 0, seconds_since_log = 0;
  std::int64_t samples_per_step = 0;  // over all processes
  std::int64_t processes = 1;         // that the step was made by
  std::int64_t total_steps = 0;       // that the run was to have; 0: not known
  double seconds = 0;                 // of training, over all parts of the run
  std::int64_t evaluated_step = 0;    // the last one that was evaluated

  // Of metric_for_best_model; −1: no evaluation yet.
  std::int64_t best_step = -1;
  double best_value = 0;
  std::int64_t evaluations_without_gain = 0;
  bool has_stopped_early = false;

  Fields fields();
};

struct CheckpointWriter {
  std::filesystem::path output_dir;
  OrderedJson config;  // effective; a resumed run must have the same
  std::int64_t save_total_limit = 2;
  // Writes into a folder what other programs load.
  std::function<void(const std::filesystem::path& folder)> save_result = {};
  bool is_whole_model = false;  // what save_result writes holds every trained parameter
  std::string inputs = {};      // text of inputs.json; empty: none

  // Writes checkpoint-<step> and removes the oldest beyond the limit, but never the best. Where a
  // whole checkpoint of this step is there already, its tensors stay and the state is replaced.
  // Throws Error naming the last good checkpoint when the disk is full; nothing of the failed one
  // is left.
  void save(const TrainingState& state, const Optimizer& optimizer) const;
  // Replaces the state of checkpoint-<step>, which is whole.
  void update(const TrainingState& state) const;

 private:
  void write(const std::filesystem::path& folder, const TrainingState& state,
             const Optimizer& optimizer) const;
  void remove_old(std::int64_t best_step) const;
};

// The newest whole checkpoint of a folder, if it has any. One that is not whole is warned about and
// passed over; Error when none of those there is whole.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& output_dir);

// Removes what an interrupted save or removal left, and with `all` every checkpoint that this
// program wrote.
void clean_checkpoints(const std::filesystem::path& output_dir, bool all);

// Names of "checkpoint-N" entries that other programs wrote. They are passed over everywhere.
std::vector<std::string> foreign_checkpoints(const std::filesystem::path& output_dir);
bool is_checkpoint_name(const std::string& name);

// output_dir/checkpoint-<step>
std::filesystem::path checkpoint_path(const std::filesystem::path& output_dir, std::int64_t step);

// Keys of `now` whose values differ from those of `then`, without those that may change between the
// parts of a run.
std::vector<std::string> find_changed_keys(const OrderedJson& then, const OrderedJson& now);

// Reads the state of a checkpoint. Throws Error naming the keys when it was made by another config.
TrainingState load_training_state(const std::filesystem::path& checkpoint,
                                  const OrderedJson& config);

// A run of `total_steps` goes on with the state: says so when it was to have another length. Throws
// Error when it is to end before the step that is done.
void take_length(TrainingState& state, std::int64_t total_steps);

// Copies the checkpoint's weights into the optimizer's parameters. Throws Error as SafetensorsFile.
void load_trained_weights(const std::filesystem::path& checkpoint, const Optimizer& optimizer);

// The same with the optimizer's state.
void load_weights_and_optimizer(const std::filesystem::path& checkpoint, Optimizer& optimizer);

}  // namespace vlm::train

// Checkpoints of a run: output_dir/checkpoint-N with weights, optimizer state and the trainer's own
// numbers.
//
//   CheckpointWriter::save ─► weights, optimizer.safetensors, inputs.json, trainer_state.json (the
//   state, the config, a digest of each tensor file) ─► find_checkpoint ─► load_training_state
//
// A checkpoint also holds the result of its step: for an adapter the PEFT folder, in addition to
// the trained parameters (trained.safetensors); for full training the whole model, which is then
// the only copy of the weights. So `--adapter`, `--model` and PEFT load it.
//
// A checkpoint is written under a temporary name, synced to the disk and renamed; one that is
// removed is renamed first. So a folder called checkpoint-N was always complete, however a run
// ended, and later damage is found by its digests.
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

// State of a run besides weights and optimizer.
struct TrainingState {
  std::int64_t step = 0;  // optimizer steps done
  // Sums over the steps since the last row of metrics.
  double loss_since_log = 0;
  std::int64_t steps_since_log = 0;
  std::int64_t samples_since_log = 0, tokens_since_log = 0, slots_since_log = 0;
  double data_wait_since_log = 0, seconds_since_log = 0;
  std::int64_t samples_per_step = 0;  // over all processes
  std::int64_t processes = 1;         // that made the step
  std::int64_t total_steps = 0;       // planned length of the run; 0: not known
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
  // Writes the result (adapter or model) into a folder.
  std::function<void(const std::filesystem::path& folder)> save_result = {};
  bool is_whole_model = false;  // save_result writes every trained parameter
  std::string inputs = {};      // text of inputs.json; empty: none

  // Writes checkpoint-<step> and removes the oldest beyond the limit, but never the best. If there
  // is a complete checkpoint of this step, only its state is replaced. Throws Error naming the last
  // good checkpoint when the disk is full; nothing of the failed one is left.
  void save(const TrainingState& state, const Optimizer& optimizer) const;
  // Replaces the state of checkpoint-<step>, which must be complete.
  void update(const TrainingState& state) const;

 private:
  void write(const std::filesystem::path& folder, const TrainingState& state,
             const Optimizer& optimizer) const;
  void remove_old(std::int64_t best_step) const;
};

// The newest whole checkpoint of a folder, if it has any. One that is not whole is warned about and
// passed over; Error when none of those there is whole.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& output_dir);

// Removes remains of interrupted saves and removals, and with `all` every checkpoint that this
// program wrote.
void clean_checkpoints(const std::filesystem::path& output_dir, bool all);

// Names of "checkpoint-N" entries that other programs wrote. They are ignored everywhere.
std::vector<std::string> foreign_checkpoints(const std::filesystem::path& output_dir);
bool is_checkpoint_name(const std::string& name);

// output_dir/checkpoint-<step>
std::filesystem::path checkpoint_path(const std::filesystem::path& output_dir, std::int64_t step);

// Keys of `new_config` whose values differ from those of `old_config`, without those that may
// change between the parts of a run.
std::vector<std::string> find_changed_keys(const OrderedJson& old_config,
                                           const OrderedJson& new_config);

// Reads the state of a checkpoint. Throws Error naming the keys when it was made by another config.
TrainingState load_training_state(const std::filesystem::path& checkpoint,
                                  const OrderedJson& config);

// Sets the length of a resumed run, and logs when it was another one. Throws Error when it is less
// than the steps already done.
void set_total_steps(TrainingState& state, std::int64_t total_steps);

// The key that a whole model saves a parameter under.
using KeyOf = std::function<std::string(const std::string& name)>;

// Copies the checkpoint's weights into the optimizer's parameters. Throws Error as SafetensorsFile.
void load_trained_weights(const std::filesystem::path& checkpoint, const Optimizer& optimizer,
                          const KeyOf& key_of);

// Loads the weights as load_trained_weights, and the optimizer's state.
void load_weights_and_optimizer(const std::filesystem::path& checkpoint, Optimizer& optimizer,
                                const KeyOf& key_of);

}  // namespace vlm::train

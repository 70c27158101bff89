#include "train/run/training_state.h"

#include <ATen/ops/copy.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "train/run/run_inputs.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/checkpoint.h"
#include "vlm/io/tensor_digest.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateFile = "trainer_state.json";
constexpr const char* kWeightsFile = "trained.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kAdapterFile = "adapter_model.safetensors";
constexpr const char* kModelFile = "model.safetensors";  // or its shards
constexpr const char* kSaving = "saving-";
constexpr const char* kRemoving = "removing-";

// Keys that may change between the parts of a run without changing what is learned, or (its length)
// changing it as asked. How many forward passes make a step follows from samples_per_step.
bool is_free_to_change(const std::string& key) {
  static const std::set<std::string> free = {
      "save_steps",  "save_total_limit", "logging_steps",     "eval_steps",
      "output_dir",  "num_train_epochs", "max_steps",         "max_bad_samples",
      "report_to",   "report_samples",   "feature_cache_gb",  "dataloader_num_workers",
      "json_schema", "ddp_timeout",      "ddp_bucket_cap_mb", "gradient_accumulation_steps"};
  return free.count(key) > 0;
}

// The N of "checkpoint-N", or −1.
std::int64_t step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  const std::string prefix = "checkpoint-";
  std::int64_t step = -1;
  if (!name.starts_with(prefix)) return -1;
  const char* end = name.data() + name.size();
  const auto [at, code] = std::from_chars(name.data() + prefix.size(), end, step);
  return code == std::errc() && at == end ? step : -1;
}

// Whether this program wrote a checkpoint, be it damaged since. transformers' Trainer names its own
// alike, and its state too, but never its optimizer.
bool is_from_this_program(const fs::path& checkpoint) {
  if (fs::exists(checkpoint / kOptimizerFile) || fs::exists(checkpoint / kWeightsFile)) return true;
  std::ifstream in(checkpoint / kStateFile);
  const Json state = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  return state.is_object() && state.contains("digests");
}

// This program's, by their steps.
std::vector<fs::path> list_checkpoints(const fs::path& output_dir) {
  std::vector<fs::path> found;
  if (!fs::is_directory(output_dir)) return found;
  for (const auto& entry : fs::directory_iterator(output_dir)) {
    if (step_of(entry.path()) >= 0 && is_from_this_program(entry.path()))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return step_of(a) < step_of(b); });
  return found;
}

// Under a name that no one takes for a checkpoint, so that a removal cut off leaves nothing half.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path removed = checkpoint.parent_path() / (kRemoving + checkpoint.filename().string());
  fs::remove_all(removed);
  fs::rename(checkpoint, removed);
  fs::remove_all(removed);
}

std::string compute_digest(NamedTensors tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return digest_tensors(tensors);
}

// Of the tensors of one of a checkpoint's files; a whole model's may be in shards.
std::string compute_digest(const fs::path& checkpoint, const std::string& file) {
  NamedTensors tensors;
  if (file == kModelFile) {
    const Checkpoint opened(checkpoint);
    for (const std::string& name : opened.keys()) tensors.emplace_back(name, opened.tensor(name));
    return compute_digest(std::move(tensors));
  }
  const SafetensorsFile opened(checkpoint / file);
  for (const auto& [name, entry] : opened.entries())
    tensors.emplace_back(name, opened.tensor(name));
  return compute_digest(std::move(tensors));
}

// What is wrong with a checkpoint; empty: nothing.
std::string find_damage(const fs::path& checkpoint) {
  try {
    const Json state = load_json(checkpoint / kStateFile);
    const Json digests = state.value("digests", Json::object());
    const bool has_weights = digests.contains(kWeightsFile) || digests.contains(kModelFile);
    if (!has_weights || !digests.contains(kOptimizerFile)) return "no digests";
    for (const auto& [file, digest] : digests.items()) {
      if (digest != compute_digest(checkpoint, file))
        return concat(file, " isn't what was written");
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace

Fields TrainingState::fields() {
  return {{"step", &step},
          {"loss_since_log", &loss_since_log},
          {"steps_since_log", &steps_since_log},
          {"samples_since_log", &samples_since_log},
          {"tokens_since_log", &tokens_since_log},
          {"slots_since_log", &slots_since_log},
          {"data_wait_since_log", &data_wait_since_log},
          {"seconds_since_log", &seconds_since_log},
          {"samples_per_step", &samples_per_step},
          {"processes", &processes},
          {"total_steps", &total_steps},
          {"seconds", &seconds},
          {"evaluated_step", &evaluated_step},
          {"best_step", &best_step},
          {"best_value", &best_value},
          {"evaluations_without_gain", &evaluations_without_gain},
          {"has_stopped_early", &has_stopped_early}};
}

fs::path checkpoint_path(const fs::path& output_dir, std::int64_t step) {
  return output_dir / concat("checkpoint-", step);
}

void CheckpointWriter::save(const TrainingState& state, const Optimizer& optimizer) const {
  const fs::path place = checkpoint_path(output_dir, state.step);
  const fs::path temporary = output_dir / (kSaving + place.filename().string());
  if (fs::exists(place)) {
    // The same step of the same run. Putting another in its place would leave a moment without.
    if (find_damage(place).empty()) return update(state);
    remove_checkpoint(place);
  }
  try {
    fs::remove_all(temporary);
    make_folders(temporary);
    write(temporary, state, optimizer);
    rename_durably(temporary, place);
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    const auto kept = list_checkpoints(output_dir);
    throw Error({.what = "can't save the checkpoint",
                 .where = place.string(),
                 .got = error.what(),
                 .hint = kept.empty() ? "there is none yet to go on from"
                                      : "the same command goes on from " + kept.back().string()});
  }
  remove_old(state.best_step);
}

void CheckpointWriter::update(const TrainingState& state) const {
  const fs::path path = checkpoint_path(output_dir, state.step) / kStateFile;
  OrderedJson json = load_ordered_json(path);
  TrainingState copy = state;
  json.update(write_fields(copy.fields()));
  json["config"] = config;
  save_text(path, json.dump(2) + "\n");
  remove_old(state.best_step);
}

void CheckpointWriter::write(const fs::path& folder, const TrainingState& state,
                             const Optimizer& optimizer) const {
  TrainingState copy = state;
  OrderedJson json = write_fields(copy.fields());
  OrderedJson& digests = json["digests"];
  if (save_result) save_result(folder);
  if (is_whole_model) {
    digests[kModelFile] = compute_digest(folder, kModelFile);
  } else {
    save_safetensors(folder / kWeightsFile, optimizer.parameters());
    digests[kWeightsFile] = compute_digest(optimizer.parameters());
  }
  if (fs::exists(folder / kAdapterFile))
    digests[kAdapterFile] = compute_digest(folder, kAdapterFile);
  save_safetensors(folder / kOptimizerFile, optimizer.state());
  digests[kOptimizerFile] = compute_digest(optimizer.state());
  json["config"] = config;
  if (!inputs.empty()) save_text(folder / kInputsFile, inputs);
  save_text(folder / kStateFile, json.dump(2) + "\n");
  for (const auto& entry : fs::directory_iterator(folder)) sync_file(entry.path());
  sync_folder(folder);
}

void CheckpointWriter::remove_old(std::int64_t best_step) const {
  std::vector<fs::path> removable = list_checkpoints(output_dir);
  const auto kept_count = static_cast<std::size_t>(save_total_limit);
  if (removable.size() <= kept_count) return;
  removable.resize(removable.size() - kept_count);
  for (const fs::path& old : removable) {
    if (step_of(old) != best_step) remove_checkpoint(old);
  }
}

void clean_checkpoints(const fs::path& output_dir, bool all) {
  if (!fs::is_directory(output_dir)) return;
  if (all) {
    for (const fs::path& old : list_checkpoints(output_dir)) remove_checkpoint(old);
  }
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(output_dir)) {
    const std::string name = entry.path().filename().string();
    for (const std::string prefix : {kSaving, kRemoving}) {
      const bool is_ours = name.starts_with(prefix) && step_of(name.substr(prefix.size())) >= 0;
      if (is_ours) left.push_back(entry.path());
    }
  }
  // Where the state of a whole checkpoint was being replaced (update).
  for (const fs::path& checkpoint : list_checkpoints(output_dir)) {
    for (const auto& entry : fs::directory_iterator(checkpoint)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(concat(kStateFile, ".tmp"))) left.push_back(entry.path());
    }
  }
  for (const fs::path& path : left) fs::remove_all(path);
}

bool is_checkpoint_name(const std::string& name) {
  return step_of(name) >= 0;
}

std::vector<std::string> foreign_checkpoints(const fs::path& output_dir) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(output_dir)) {
    const fs::path& path = entry.path();
    if (step_of(path) >= 0 && !is_from_this_program(path))
      found.push_back(path.filename().string());
  }
  return found;
}

std::optional<fs::path> find_checkpoint(const fs::path& output_dir) {
  auto checkpoints = list_checkpoints(output_dir);
  std::string first_damage;
  for (auto at = checkpoints.rbegin(); at != checkpoints.rend(); ++at) {
    const std::string damage = find_damage(*at);
    if (damage.empty()) return *at;
    log_warning(concat(at->string(), " is damaged and passed over: ", damage));
    if (first_damage.empty()) first_damage = damage;
  }
  if (checkpoints.empty()) return std::nullopt;
  throw Error({.what = "none of the checkpoints is whole",
               .where = output_dir.string(),
               .got = concat(checkpoints.back().filename().string(), ": ", first_damage),
               .hint = "--restart begins anew"});
}

std::vector<std::string> find_changed_keys(const OrderedJson& old_config,
                                           const OrderedJson& new_config) {
  std::vector<std::string> changed;
  for (const auto& [key, value] : new_config.items()) {
    if (is_free_to_change(key)) continue;
    if (!old_config.is_object() || !old_config.contains(key) || old_config[key] != value)
      changed.push_back(key);
  }
  return changed;
}

TrainingState load_training_state(const fs::path& checkpoint, const OrderedJson& config) {
  const fs::path path = checkpoint / kStateFile;
  const OrderedJson json = load_ordered_json(path);
  const auto changed = find_changed_keys(json.value("config", OrderedJson()), config);
  if (!changed.empty()) {
    throw Error({.what = "the run to be resumed had another config",
                 .where = path.string(),
                 .got = concat("other values of ", join(changed)),
                 .hint = "use another output_dir, or --restart to begin anew"});
  }
  TrainingState state;
  read_fields(Json::parse(json.dump()), state.fields(), UnknownKeys::kIgnore, path.string());
  return state;
}

void set_total_steps(TrainingState& state, std::int64_t total_steps) {
  if (total_steps < state.step) {
    throw Error({.what = "the run is to be shorter than what is done",
                 .where = "max_steps, num_train_epochs",
                 .got = concat(total_steps, " steps"),
                 .wanted = concat("at least the ", state.step, " steps that are done"),
                 .hint = "use another output_dir, or --restart to begin anew"});
  }
  if (state.total_steps > 0 && state.total_steps != total_steps) {
    log_info(concat("the run now has ", total_steps, " steps instead of ", state.total_steps,
                    ": from here on the learning rate follows the schedule of ", total_steps));
  }
  state.total_steps = total_steps;
}

void load_trained_weights(const fs::path& checkpoint, const Optimizer& optimizer,
                          const KeyOf& key_of) {
  const c10::NoGradGuard no_grad;
  if (!fs::exists(checkpoint / kWeightsFile)) {
    const Checkpoint model(checkpoint);
    for (const auto& [name, parameter] : optimizer.parameters()) {
      at::Tensor(parameter).copy_(model.tensor(key_of(name)));
    }
    return;
  }
  const SafetensorsFile weights(checkpoint / kWeightsFile);
  for (const auto& [name, parameter] : optimizer.parameters()) {
    at::Tensor(parameter).copy_(weights.tensor(name));
  }
}

void load_weights_and_optimizer(const fs::path& checkpoint, Optimizer& optimizer,
                                const KeyOf& key_of) {
  load_trained_weights(checkpoint, optimizer, key_of);
  optimizer.load_state(SafetensorsFile(checkpoint / kOptimizerFile));
}

}  // namespace vlm::train

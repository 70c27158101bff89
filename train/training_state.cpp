#include "train/training_state.h"

#include <ATen/ops/copy.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/tensor_digest.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateFile = "trainer_state.json";
constexpr const char* kWeightsFile = "trained.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kSaving = "saving-";
constexpr const char* kRemoving = "removing-";

// Keys that may change between the parts of a run without changing what is learned. How many
// forward passes make a step follows from samples_per_step.
bool is_free_to_change(const std::string& key) {
  static const std::set<std::string> free = {
      "save_steps",       "save_total_limit",       "output_dir",
      "feature_cache_gb", "dataloader_num_workers", "gradient_accumulation_steps",
      "report_to",        "report_samples",         "ddp_bucket_cap_mb",
      "ddp_timeout"};
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

// By their steps.
std::vector<fs::path> list_checkpoints(const fs::path& output_dir) {
  std::vector<fs::path> found;
  if (!fs::is_directory(output_dir)) return found;
  for (const auto& entry : fs::directory_iterator(output_dir)) {
    if (step_of(entry.path()) >= 0) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return step_of(a) < step_of(b); });
  return found;
}

// Under a name that no one takes for a checkpoint, so that a removal cut off leaves nothing half.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path aside = checkpoint.parent_path() / (kRemoving + checkpoint.filename().string());
  fs::remove_all(aside);
  fs::rename(checkpoint, aside);
  fs::remove_all(aside);
}

std::string digest_of(NamedTensors tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return digest_tensors(tensors);
}

std::string digest_of(const fs::path& file) {
  const SafetensorsFile opened(file);
  NamedTensors tensors;
  for (const auto& [name, entry] : opened.entries())
    tensors.emplace_back(name, opened.tensor(name));
  return digest_of(std::move(tensors));
}

// What is wrong with a checkpoint; empty: nothing.
std::string find_damage(const fs::path& checkpoint) {
  try {
    const Json state = load_json(checkpoint / kStateFile);
    for (const char* file : {kWeightsFile, kOptimizerFile}) {
      const auto digests = state.find("digests");
      if (digests == state.end() || !digests->contains(file)) return "no digests";
      if ((*digests)[file] != digest_of(checkpoint / file)) {
        return concat(file, " isn't what was written");
      }
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
          {"samples_per_step", &samples_per_step},
          {"processes", &processes},
          {"seconds", &seconds},
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
    if (find_damage(place).empty()) return;
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

void CheckpointWriter::write(const fs::path& folder, const TrainingState& state,
                             const Optimizer& optimizer) const {
  save_safetensors(folder / kWeightsFile, optimizer.parameters());
  save_safetensors(folder / kOptimizerFile, optimizer.state());
  TrainingState copy = state;
  OrderedJson json = write_fields(copy.fields());
  json["digests"] = {{kWeightsFile, digest_of(optimizer.parameters())},
                     {kOptimizerFile, digest_of(optimizer.state())}};
  json["config"] = config;
  save_text(folder / kStateFile, json.dump(2) + "\n");
}

void CheckpointWriter::remove_old(std::int64_t best_step) const {
  std::vector<fs::path> removable = list_checkpoints(output_dir);
  const auto keep = static_cast<std::size_t>(save_total_limit);
  if (removable.size() <= keep) return;
  removable.resize(removable.size() - keep);
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
  for (const fs::path& path : left) fs::remove_all(path);
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

TrainingState load_training_state(const fs::path& checkpoint, const OrderedJson& config) {
  const fs::path path = checkpoint / kStateFile;
  const OrderedJson json = load_ordered_json(path);
  std::vector<std::string> changed;
  for (const auto& [key, value] : config.items()) {
    if (is_free_to_change(key)) continue;
    if (!json.contains("config") || !json["config"].contains(key) || json["config"][key] != value) {
      changed.push_back(key);
    }
  }
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

void load_trained_weights(const fs::path& checkpoint, const Optimizer& optimizer) {
  const c10::NoGradGuard no_grad;
  const SafetensorsFile weights(checkpoint / kWeightsFile);
  for (const auto& [name, parameter] : optimizer.parameters()) {
    at::Tensor(parameter).copy_(weights.tensor(name));
  }
}

void load_weights_and_optimizer(const fs::path& checkpoint, Optimizer& optimizer) {
  load_trained_weights(checkpoint, optimizer);
  optimizer.load_state(SafetensorsFile(checkpoint / kOptimizerFile));
}

}  // namespace vlm::train

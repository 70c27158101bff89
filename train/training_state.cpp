#include "train/training_state.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/fields.h"
#include "vlm/core/json.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateFile = "trainer_state.json";

// Keys that may change between the parts of a run without changing what is learned.
bool is_free_to_change(const std::string& key) {
  return key == "save_steps" || key == "save_total_limit" || key == "output_dir";
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

std::vector<fs::path> list_checkpoints(const fs::path& output_dir) {
  std::vector<fs::path> found;
  if (!fs::is_directory(output_dir)) return found;
  for (const auto& entry : fs::directory_iterator(output_dir)) {
    if (step_of(entry.path()) >= 0 && fs::exists(entry.path() / kStateFile)) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return step_of(a) < step_of(b); });
  return found;
}

}  // namespace

void CheckpointWriter::save(const TrainingState& state, const Optimizer& optimizer) const {
  const fs::path place = output_dir / concat("checkpoint-", state.step);
  const fs::path temporary = output_dir / concat("saving-checkpoint-", state.step);
  fs::remove_all(temporary);
  fs::create_directories(temporary);
  save_weights(temporary);
  save_safetensors(temporary / "optimizer.safetensors", optimizer.state());
  OrderedJson json;
  json["step"] = state.step;
  json["loss_since_log"] = state.loss_since_log;
  json["steps_since_log"] = state.steps_since_log;
  json["config"] = config;
  save_text(temporary / kStateFile, json.dump(2) + "\n");
  fs::remove_all(place);
  fs::rename(temporary, place);
  auto checkpoints = list_checkpoints(output_dir);
  const auto keep = static_cast<std::size_t>(save_total_limit);
  for (std::size_t i = 0; i + keep < checkpoints.size(); ++i) fs::remove_all(checkpoints[i]);
}

std::optional<fs::path> find_checkpoint(const fs::path& output_dir) {
  const auto checkpoints = list_checkpoints(output_dir);
  if (checkpoints.empty()) return std::nullopt;
  return checkpoints.back();
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
  read_fields(Json::parse(json.dump()),
              {{"step", &state.step},
               {"loss_since_log", &state.loss_since_log},
               {"steps_since_log", &state.steps_since_log}},
              UnknownKeys::kIgnore, path.string());
  return state;
}

}  // namespace vlm::train

#include "train/run/run_folder.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "train/run/training_state.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/checkpoint.h"
#include "vlm/models/model_files.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kPatience{20};  // for digests, when a checkpoint is due

// What every run writes, beside its result and its checkpoints.
const std::set<std::string> kRunNames = {
    "metrics.jsonl",         "runs",        "eval_before.jsonl", "eval_answers.jsonl",
    "skipped_samples.jsonl", "inputs.json", "train_config.json", "plan.json",
    "report.html",           "README.md"};
const std::set<std::string> kAdapterNames = {"adapter_config.json", "adapter_model.safetensors"};

bool is_adapter_file(const std::string& name) {
  return kAdapterNames.count(name) > 0 || name == "adapter_model.bin";
}

// What the method's result is made of.
bool is_result_of(const TrainConfig& config, const std::string& name) {
  if (config.trains_adapter()) return kAdapterNames.count(name) > 0;
  return is_model_file(name) && (!is_weights_file(name) || name.find(".safetensors") != name.npos);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The first part of `path` below `folder`; empty for the folder itself, ".." for what lies outside.
std::string part_below(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  if (relative.empty()) return "..";
  const std::string first = relative.begin()->string();
  return first == "." ? "" : first;
}

// What a file beside its place is to become (vlm/core/durable_file.h); empty for other names.
std::string place_of(const std::string& name) {
  constexpr std::string_view kMark = ".tmp";
  constexpr std::size_t kDigits = 16;
  if (name.size() <= kMark.size() + kDigits) return "";
  const std::size_t end = name.size() - kDigits - kMark.size();
  const bool is_aside = name.compare(end, kMark.size(), kMark) == 0 &&
                        std::all_of(name.end() - kDigits, name.end(), is_hex_digit);
  return is_aside ? name.substr(0, end) : "";
}

// Removes what a program left that was killed while it saved.
void remove_unfinished(const fs::path& folder, const TrainConfig& config) {
  for (const std::string& name : names_in(folder)) {
    const std::string place = place_of(name);
    if (place.empty()) continue;
    if (kRunNames.count(place) > 0 || is_result_of(config, place)) fs::remove(folder / name);
  }
}

}  // namespace

void set_aside(const fs::path& folder, const std::vector<std::string>& names) {
  if (names.empty()) return;
  int number = 1;
  while (fs::exists(fs::symlink_status(folder / concat("earlier-", number)))) ++number;
  const fs::path earlier = folder / concat("earlier-", number);
  fs::create_directory(earlier);
  for (const std::string& name : names) fs::rename(folder / name, earlier / name);
  constexpr std::size_t kNamed = 4;
  const std::vector<std::string> first(names.begin(),
                                       names.begin() + std::min(names.size(), kNamed));
  const std::string more =
      names.size() > kNamed ? concat(" and ", names.size() - kNamed, " more") : "";
  log_warning(
      concat("what was there before is moved to ", earlier.string(), ": ", join(first), more));
}

std::vector<std::string> find_results(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder);
  const bool has_weights = std::any_of(names.begin(), names.end(), is_weights_file);
  std::vector<std::string> found;
  for (const std::string& name : names) {
    // A config.json without weights is no one's model.
    if (is_adapter_file(name) || (has_weights && is_model_file(name))) found.push_back(name);
  }
  return found;
}

void check_is_kept(const fs::path& path, const fs::path& folder,
                   const std::vector<std::string>& names) {
  const fs::path real_folder = fs::weakly_canonical(folder);
  for (const fs::path& place :
       {fs::absolute(path).lexically_normal(), fs::weakly_canonical(path)}) {
    for (const fs::path& root : {fs::absolute(folder).lexically_normal(), real_folder}) {
      const std::string part = part_below(place, root);
      const bool is_taken =
          part.empty() || std::find(names.begin(), names.end(), part) != names.end();
      if (!is_taken) continue;
      throw Error({.what = "what is read would be written over by the result",
                   .where = path.string(),
                   .got = concat("the result goes to ", folder.string()),
                   .hint = "choose another folder for the result"});
    }
  }
}

RunFolder::RunFolder(const fs::path& output_dir)
    : lock_(output_dir, "wait for it, or choose another output_dir"), path_(output_dir) {}

void RunFolder::begin(const RunStart& start) {
  inputs_ = find_inputs(start.config, start.model, start.datasets);
  if (!start.checkpoint.empty()) {
    const fs::path list = start.checkpoint / kInputsFile;
    if (fs::exists(list)) {
      check_inputs(inputs_, load_inputs(list));
    } else {
      log_warning(concat(start.checkpoint.string(),
                         " holds no digests of the run's files: they aren't compared"));
    }
  }
  const bool goes_on = !start.checkpoint.empty() || is_same_beginning(start);
  const std::vector<std::string> foreign = find_foreign_files(start, goes_on);
  check_reads(start, foreign);
  if (start.restart) clean_checkpoints(path_, /*all=*/true);
  set_aside(path_, foreign);
  remove_unfinished(path_, start.config);
  save_text(path_ / "train_config.json", start.effective_config.dump(2) + "\n");
  read_inputs();
}

std::vector<std::string> RunFolder::find_foreign_files(const RunStart& start, bool goes_on) const {
  std::set<std::string> foreign;
  for (const std::string& name : names_in(path_)) {
    const bool is_left = kRunNames.count(name) > 0 && !goes_on;
    const bool is_plan = name == "plan.json" && start.has_plan;
    if (is_left && !is_plan) foreign.insert(name);
  }
  for (const std::string& name : find_results(path_)) {
    if (!goes_on || !is_result_of(start.config, name)) foreign.insert(name);
  }
  for (const std::string& name : foreign_checkpoints(path_)) foreign.insert(name);
  return {foreign.begin(), foreign.end()};
}

void RunFolder::check_reads(const RunStart& start, std::vector<std::string> names) const {
  names.insert(names.end(), kRunNames.begin(), kRunNames.end());
  for (const std::string& name : names_in(path_)) {
    if (is_result_of(start.config, name) || is_checkpoint_name(name)) names.push_back(name);
  }
  check_is_kept(start.model, path_, names);
  if (start.config.adapter) check_is_kept(*start.config.adapter, path_, names);
  for (const InputFile& file : inputs_) check_is_kept(file.path, path_, names);
  // The config that a run left is written again with the same values.
  const bool is_in_folder = start.config_file.filename() == "train_config.json";
  if (!start.config_file.empty() && !is_in_folder) check_is_kept(start.config_file, path_, names);
}

// A run that was ended before its first checkpoint, and begins again: there is nothing of another.
bool RunFolder::is_same_beginning(const RunStart& start) {
  if (start.restart || !find_results(path_).empty()) return false;
  try {
    const OrderedJson config = load_ordered_json(path_ / "train_config.json");
    if (!find_changed_keys(config, start.effective_config).empty()) return false;
    check_inputs(inputs_, load_inputs(path_ / kInputsFile));
    return true;
  } catch (const Error&) {
    return false;
  }
}

void RunFolder::read_inputs() {
  save_inputs();
  std::promise<InputFiles> promise;
  digested_ = promise.get_future();
  reader_ = std::jthread(
      [files = inputs_, promise = std::move(promise)](const std::stop_token& stop) mutable {
        try {
          digest_inputs(files, stop);
          promise.set_value(std::move(files));
        } catch (...) {
          promise.set_exception(std::current_exception());
        }
      });
}

const InputFiles& RunFolder::inputs() {
  if (digested_.valid() && digested_.wait_for(kPatience) == std::future_status::ready) {
    inputs_ = digested_.get();
    save_inputs();
  }
  return inputs_;
}

void RunFolder::save_inputs() const {
  save_text(path_ / kInputsFile, to_text(inputs_));
}

}  // namespace vlm::train

#include "tests/combinations/training_result.h"

#include <ATen/ops/isfinite.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "tests/combinations/draws.h"
#include "tests/support/run_program.h"
#include "tests/support/small_training.h"
#include "vlm/io/safetensors.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::set<std::string> kRunFiles = {
    "README.md",  "report.html",       "train_config.json",  "metrics.jsonl",
    "plan.json",  "eval_before.jsonl", "eval_answers.jsonl", "skipped_samples.jsonl",
    "inputs.json"};
const std::set<std::string> kStateFiles = {"trained.safetensors", "optimizer.safetensors",
                                           "trainer_state.json", "inputs.json"};

std::set<std::string> result_files(const Json& config) {
  if (config["method"] != "full") return {"adapter_config.json", "adapter_model.safetensors"};
  std::set<std::string> names = {"model.safetensors"};
  for (const auto& entry :
       fs::directory_iterator(config["model_name_or_path"].get<std::string>())) {
    if (entry.is_regular_file()) names.insert(entry.path().filename().string());
  }
  return names;
}

bool is_weights(const fs::path& path) {
  return path.extension() == ".safetensors";
}

// The names of files whose bytes don't depend on when the run was made, or where.
std::vector<std::string> repeatable_files(const fs::path& whole, const fs::path& parts) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : read_folder(whole)) {
    const std::string top = name.substr(0, name.find('/'));
    const bool is_result = is_weights(name) || name.ends_with("adapter_config.json") ||
                           name.ends_with("eval_before.jsonl") ||
                           name.ends_with("eval_answers.jsonl");
    // Which checkpoints are kept depends on where a run was stopped.
    const bool is_there = !top.starts_with("checkpoint-") || fs::exists(parts / top);
    if (is_result && is_there) names.push_back(name);
  }
  return names;
}

}  // namespace

void expect_owned_files(const fs::path& output, const Json& config) {
  // Without a checkpoint to go on from a run begins anew, and keeps what was there.
  static const std::regex earlier(R"(earlier-\d+/.*)");
  static const std::regex events(R"(runs/events\.out\.tfevents\..*)");
  static const std::regex checkpoint(R"(checkpoint-\d+/(.*))");
  const std::set<std::string> results = result_files(config);
  for (const auto& [name, bytes] : read_folder(output)) {
    std::smatch found;
    const bool is_inside = std::regex_match(name, found, checkpoint);
    const std::string inner = is_inside ? found[1].str() : name;
    const std::set<std::string>& others = is_inside ? kStateFiles : kRunFiles;
    expect(others.count(inner) > 0 || results.count(inner) > 0 || std::regex_match(name, events) ||
               std::regex_match(name, earlier),
           "a file that nobody owns: " + name);
  }
  const std::string weights =
      config["method"] == "full" ? "model.safetensors" : "adapter_model.safetensors";
  expect(fs::exists(output / weights), "no " + weights + " in the result");
}

void expect_finite(const fs::path& output) {
  for (const auto& entry : fs::recursive_directory_iterator(output)) {
    if (!is_weights(entry.path())) continue;
    const SafetensorsFile file(entry.path());
    for (const auto& [name, tensor] : file.entries()) {
      expect(at::isfinite(file.tensor(name)).all().item<bool>(),
             entry.path().string() + ": not finite: " + name);
    }
  }
  for (const Json& row : repeatable_metrics(output)) {
    for (const auto& [key, value] : row.items()) {
      expect(value.is_number(), "metrics.jsonl: no number: " + row.dump());
    }
  }
}

void expect_same_results(const fs::path& whole, const fs::path& parts) {
  for (const std::string& name : repeatable_files(whole, parts)) {
    expect(fs::exists(parts / name), "the cut run has no " + name);
    expect(read_file(whole / name) == read_file(parts / name), "the cut run has another " + name);
  }
  const auto wanted = repeatable_metrics(whole), got = repeatable_metrics(parts);
  for (std::size_t i = 0; i < std::min(wanted.size(), got.size()); ++i) {
    expect(wanted[i] == got[i], "the cut run has another row of metrics: " + got[i].dump() +
                                    ", not " + wanted[i].dump());
  }
  expect(wanted.size() == got.size(), "the cut run has another number of rows of metrics");
}

std::map<std::string, std::string> read_folder(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[entry.path().lexically_relative(folder).string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace vlm

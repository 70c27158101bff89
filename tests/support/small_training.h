// A fine-tuning of the tiny model on a few questions, for tests of whole runs.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "vlm/core/json.h"

namespace vlm {

// data.jsonl with `count` questions about two of the fixtures' pictures.
inline void write_questions(const std::filesystem::path& path, int count = 5) {
  const std::vector<std::vector<std::string>> rows = {{"square.png", "What?", "a cat"},
                                                      {"wide.png", "What?", "two dogs"},
                                                      {"square.png", "Where?", "at home"},
                                                      {"wide.png", "Where?", "in Rome"},
                                                      {"square.png", "When?", "now"}};
  std::ofstream out(path);
  for (int i = 0; i < count; ++i) {
    const auto& row = rows[static_cast<std::size_t>(i) % rows.size()];
    const Json line = {
        {"messages",
         {{{"role", "user"},
           {"content", {{{"type", "image"}}, {{"type", "text"}, {"text", row[1]}}}}},
          {{"role", "assistant"}, {"content", {{{"type", "text"}, {"text", row[2]}}}}}}},
        {"images", {fixture("pictures/" + row[0]).string()}}};
    out << line.dump() << "\n";
  }
}

// Arguments of `vlm finetune` that train on folder/data.jsonl into folder/output.
inline std::vector<std::string> training_arguments(const std::filesystem::path& folder,
                                                   const std::string& output,
                                                   const std::vector<std::string>& more = {}) {
  const Json config = {{"model_name_or_path", fixture("smolvlm_tiny").string()},
                       {"output_dir", (folder / output).string()},
                       {"train_files", {(folder / "data.jsonl").string()}},
                       {"learning_rate", 0.01},
                       {"lora_dropout", 0.1},
                       {"per_device_train_batch_size", 1},
                       {"logging_steps", 1}};
  save_text(folder / "config.json", config.dump());
  std::vector<std::string> words = {
      "finetune", (folder / "config.json").string(), "--device", "cpu", "--threads", "1"};
  for (const std::string& assignment : more) {
    words.push_back("--set");
    words.push_back(assignment);
  }
  return words;
}

// Rows of metrics.jsonl without what differs from run to run: times and memory.
inline std::vector<Json> repeatable_metrics(const std::filesystem::path& output) {
  std::vector<Json> rows;
  std::ifstream in(output / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    Json row = Json::parse(line);
    for (const char* key : {"samples_per_second", "tokens_per_second", "data_wait_s", "seconds",
                            "peak_rss_mb", "peak_device_mb", "predicted_mb"}) {
      row.erase(key);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace vlm

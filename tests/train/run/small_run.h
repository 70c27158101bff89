// A run of a few steps on the tiny model, for tests of what lies in its folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/logged_lines.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/small_training.h"
#include "train/trainer.h"

namespace vlm::train {

inline const TrainOptions kCpuOptions = {.runtime = {.device = "cpu", .threads = 1}};

// Trains on folder/data.jsonl (made of five questions) into folder/out.
inline TrainConfig small_config(const ScratchFolder& folder) {
  if (!std::filesystem::exists(folder.at("data.jsonl"))) {
    write_questions(folder.at("data.jsonl"), 5);
  }
  TrainConfig config;
  config.model_name_or_path = fixture("smolvlm_tiny").string();
  config.output_dir = folder.at("out");
  config.train_files = {folder.at("data.jsonl")};
  config.per_device_train_batch_size = 2;
  config.max_steps = 2;
  config.learning_rate = 1e-2;
  config.logging_steps = 1;
  config.save_steps = 1;
  config.save_total_limit = 9;
  return config;
}

// Answers every question with its number.
inline std::vector<std::variant<std::string, Error>> answer_numbers(const AnswerRequest& request) {
  std::vector<std::variant<std::string, Error>> answers;
  for (std::size_t i = 0; i < request.prompts.size(); ++i) answers.push_back(std::to_string(i));
  return answers;
}

// The message of the Error that a run ends with; empty: none.
inline std::string run_error(const TrainConfig& config, const TrainOptions& options = kCpuOptions) {
  try {
    Trainer(config, options).run();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace vlm::train

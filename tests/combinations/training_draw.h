// A drawn training: its config, how it is started, and where it is cut.
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/combinations/dice.h"
#include "vlm/core/json.h"

namespace vlm {

// An end in the middle: a signal, some time after metrics.jsonl has so many more rows.
struct TrainingCut {
  int signal = 0;
  std::size_t rows = 0;
  std::chrono::microseconds later{0};
  bool hits_one = false;          // of several processes: the last one alone
  Json changes = Json::object();  // keys that have another value in this part
};

struct TrainingDraw {
  Json config;  // but for output_dir
  std::string dtype;
  int processes = 1;
  std::vector<TrainingCut> cuts;
};

// Writes the data files of the draw below `folder`.
TrainingDraw draw_training(Dice& dice, const std::filesystem::path& folder);

}  // namespace vlm

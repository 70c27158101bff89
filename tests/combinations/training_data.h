// Data files of a drawn training: a few rows about small pictures and clips, in any layout that the
// trainer reads.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/combinations/dice.h"
#include "vlm/core/json.h"

namespace vlm {

struct DrawnMedia {
  bool clips = false;  // rows may show clips
  int rows = 6;
};

// Writes one or two data files below `folder`; returns the value of `train_files` or `eval_files`.
Json draw_data_files(Dice& dice, const std::filesystem::path& folder, const DrawnMedia& media);

}  // namespace vlm

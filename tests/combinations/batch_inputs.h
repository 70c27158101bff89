// Inputs of a drawn batch run, of every kind that the commands read.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/combinations/dice.h"

namespace vlm {

struct BatchInputs {
  std::vector<std::string> paths;            // arguments of the command
  std::filesystem::path list = "/dev/null";  // stdin
  bool asks = false;                         // rows have questions of their own
  bool has_files = false;                    // every item is a picture file of its own
  std::filesystem::path rows;                // the file with the rows, if there is one
  std::filesystem::path folder;              // the folder that is searched, if one is
};

// For caption and vqa; for evaluate; for video.
BatchInputs draw_picture_inputs(Dice& dice, const std::filesystem::path& folder);
BatchInputs draw_evaluation_inputs(Dice& dice, const std::filesystem::path& folder);
BatchInputs draw_video_inputs(Dice& dice, const std::filesystem::path& folder);

}  // namespace vlm

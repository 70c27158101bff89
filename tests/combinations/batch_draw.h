// A drawn batch run: its command line, its inputs, and what befalls it on the way.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/combinations/dice.h"

namespace vlm {

struct BatchCut {
  int signal = 0;
  int rows = 0;  // lines of the output that it waits for
  std::chrono::microseconds later{0};
  bool has_rival = false;  // the same command is started beside it
};

struct BatchDraw {
  std::vector<std::string> arguments;        // but for --output and --shard
  std::filesystem::path list = "/dev/null";  // stdin
  std::string suffix;                        // of the output
  bool in_input_order = true;
  int shards = 1;
  bool by_environment = false;  // the shards are told as torchrun tells them
  std::vector<BatchCut> cuts;
  // Other inputs under the same names, and the first ones again; empty where there is no such way.
  std::function<void()> replace_inputs, restore_inputs;
};

// Writes the inputs below `folder`.
BatchDraw draw_batch(Dice& dice, const std::filesystem::path& folder);

}  // namespace vlm

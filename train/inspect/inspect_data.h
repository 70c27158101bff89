// `vlm inspect-data`: shows before training what a run would learn from its data.
//
//   TrainConfig ─► inspect_data ─► samples token by token, lengths, summary, what is wrong; a page
//
// Needs the checkpoint's tokenizer and processor, not its weights.
#pragma once

#include <cstdint>
#include <string>

#include "train/config/train_config.h"

namespace vlm::train {

struct InspectOptions {
  std::int64_t samples = 5;  // number that is shown: the first that the run would use
  std::int64_t threads = 0;  // 0: as many as the machine has
  bool uses_color = false;
  bool makes_page = false;
};

struct Inspection {
  std::string text;
  std::string page;          // HTML, where it was asked for
  bool is_trainable = true;  // false: the run would end with an error
};

// Throws Error for what keeps the data from being opened at all.
Inspection inspect_data(const TrainConfig& config, const InspectOptions& options);

}  // namespace vlm::train

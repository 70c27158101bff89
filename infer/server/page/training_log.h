// metrics.jsonl of a fine-tuning, as much of it as is new to the one who asks.
//
//   folder, TrainingPlace ─► read_training ─► {"file", "from", "next", "size", "rows": […]}
//
// `next` and `file` are the place to go on from. "from" is 0 where the file is another one by now,
// or was cut: a training that goes on from a checkpoint takes the rows behind it back. A last line
// that is still being written is left for the next time. No file yet is a training without rows.
#pragma once

#include <cstdint>
#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

struct TrainingPlace {
  std::string file;       // which file it was
  std::int64_t byte = 0;  // of it
};

// "from=12&file=34"; what isn't understood is left out.
TrainingPlace parse_training_place(const std::string& query);

// Throws Error when the file can't be read.
OrderedJson read_training(const std::string& folder, const TrainingPlace& place);

}  // namespace vlm::infer

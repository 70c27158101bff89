// metrics.jsonl: one row a logged step or evaluation, appended as the run goes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "vlm/core/json.h"

namespace vlm::train {

class MetricsLog {
 public:
  // Opens the file; rows of steps after `last_step` (left by a run that went on past its last
  // checkpoint) are dropped, all of them when a run begins at 0.
  MetricsLog(const std::filesystem::path& path, std::int64_t last_step);

  void write(const OrderedJson& row);

 private:
  std::ofstream out_;
};

}  // namespace vlm::train

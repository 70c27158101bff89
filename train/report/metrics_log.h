// metrics.jsonl: one row a logged step or evaluation, appended as the run goes; the same numbers go
// to TensorBoard when a log is given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "train/report/tensorboard_log.h"
#include "vlm/core/json.h"

namespace vlm::train {

class MetricsLog {
 public:
  // Opens the file and drops rows of steps after `last_step` (a run may have gone on after its last
  // checkpoint) and evaluations after `last_evaluation`; drops all rows when `last_step` is 0. An
  // empty path: nothing is written (a process that isn't the writer of its job). `tensorboard` may
  // be null.
  MetricsLog(const std::filesystem::path& path, std::int64_t last_step,
             std::int64_t last_evaluation, std::unique_ptr<TensorboardLog> tensorboard = nullptr);

  // A row has "step". Throws Error when it can't be written.
  void write(const OrderedJson& row);

 private:
  std::filesystem::path path_;
  std::ofstream out_;
  std::unique_ptr<TensorboardLog> tensorboard_;
};

// The rows of metrics.jsonl, without an incomplete last line. Empty when there is no file.
std::vector<Json> read_metrics(const std::filesystem::path& path);

}  // namespace vlm::train

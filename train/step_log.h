// Rows of metrics.jsonl about training steps: means since the last row, speed, memory.
//
//   StepFigures of each step ─► StepLog::add ─► a row every logging_steps
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>

#include "train/report/metrics_log.h"
#include "train/run/training_state.h"

namespace vlm::train {

// Figures of one optimizer step.
struct StepFigures {
  double loss = 0;
  double grad_norm = 0;
  double learning_rate = 0;
  double epoch = 0;  // after the step
  std::int64_t samples = 0;
  std::int64_t tokens = 0;  // without padding
  std::int64_t slots = 0;   // with padding
  double data_wait_s = 0;   // that the loop waited for data
  // When loss and norm were there: a GPU had done all before, and no wait is needed to know it.
  std::chrono::steady_clock::time_point read_at = {};
};

// Of tensors on a GPU, since the program began, MB.
double peak_device_mb(at::Device device);

class StepLog {
 public:
  // `state` and `metrics` must outlive the log; sums since the last row are kept in `state`, so
  // that a resumed run has them.
  StepLog(TrainingState& state, MetricsLog& metrics, std::int64_t logging_steps,
          at::Device device = at::kCPU)
      : state_(state), metrics_(metrics), logging_steps_(logging_steps), device_(device) {}

  // Counts a step; state.step is its number, from 1. Writes the row when it is due or `is_last`.
  void add(const StepFigures& figures, bool is_last);

 private:
  TrainingState& state_;
  MetricsLog& metrics_;
  std::int64_t logging_steps_;
  at::Device device_;
  std::chrono::steady_clock::time_point last_step_ = std::chrono::steady_clock::now();
};

}  // namespace vlm::train

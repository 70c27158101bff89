#include "train/step_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/nn/runtime.h"

namespace vlm::train {

void StepLog::add(const StepFigures& figures, bool is_last) {
  state_.loss_since_log += figures.loss;
  ++state_.steps_since_log;
  samples_ += figures.samples;
  if (state_.step % logging_steps_ != 0 && !is_last) return;
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - last_row_).count();
  metrics_.write({{"step", state_.step},
                  {"epoch", figures.epoch},
                  {"loss", state_.loss_since_log / static_cast<double>(state_.steps_since_log)},
                  {"grad_norm", figures.grad_norm},
                  {"learning_rate", figures.learning_rate},
                  {"samples_per_second", static_cast<double>(samples_) / std::max(seconds, 1e-9)},
                  {"peak_rss_mb", peak_rss_mb()}});
  state_.loss_since_log = 0;
  state_.steps_since_log = 0;
  samples_ = 0;
  last_row_ = now;
}

}  // namespace vlm::train

#include "train/step_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/nn/runtime.h"

namespace vlm::train {

void StepLog::add(const StepFigures& figures, bool is_last) {
  state_.loss_since_log += figures.loss;
  ++state_.steps_since_log;
  sums_.samples += figures.samples;
  sums_.tokens += figures.tokens;
  sums_.slots += figures.slots;
  sums_.data_wait_s += figures.data_wait_s;
  if (state_.step % logging_steps_ != 0 && !is_last) return;
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::max(std::chrono::duration<double>(now - last_row_).count(), 1e-9);
  const auto tokens = static_cast<double>(sums_.tokens);
  state_.seconds += seconds;
  metrics_.write({{"step", state_.step},
                  {"epoch", figures.epoch},
                  {"loss", state_.loss_since_log / static_cast<double>(state_.steps_since_log)},
                  {"grad_norm", figures.grad_norm},
                  {"learning_rate", figures.learning_rate},
                  {"samples_per_second", static_cast<double>(sums_.samples) / seconds},
                  {"tokens_per_second", tokens / seconds},
                  {"padding", 1 - tokens / std::max(static_cast<double>(sums_.slots), 1.0)},
                  {"data_wait_s", sums_.data_wait_s},
                  {"seconds", state_.seconds},
                  {"peak_rss_mb", peak_rss_mb()}});
  state_.loss_since_log = 0;
  state_.steps_since_log = 0;
  sums_ = {};
  last_row_ = now;
}

}  // namespace vlm::train

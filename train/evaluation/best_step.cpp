#include "train/evaluation/best_step.h"

#include <cmath>

namespace vlm::train {

bool record_evaluation(const EvaluationConfig& config, double value, TrainingState& state) {
  const bool is_first = state.best_step < 0;
  const double gain = config.more_is_better() ? value - state.best_value : state.best_value - value;
  const bool is_better = !std::isnan(value) && (is_first || gain > 0);
  const bool counts = is_better && (is_first || gain > config.early_stopping_threshold);
  state.evaluations_without_gain = counts ? 0 : state.evaluations_without_gain + 1;
  if (is_better) {
    state.best_value = value;
    state.best_step = state.step;
  }
  const std::int64_t patience = config.early_stopping_patience;
  state.has_stopped_early = patience > 0 && state.evaluations_without_gain >= patience;
  return is_better;
}

}  // namespace vlm::train

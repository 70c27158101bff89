// The best step so far, and early stopping.
//
// Reference: transformers 5.23, Trainer._determine_best_metric and EarlyStoppingCallback.
#pragma once

#include "train/config/evaluation_config.h"
#include "train/run/training_state.h"

namespace vlm::train {

// Records the value of an evaluation at state.step in the state; true when it is the best so far.
// Sets has_stopped_early after early_stopping_patience evaluations in a row without improvement.
// NaN is never better.
bool record_evaluation(const EvaluationConfig& config, double value, TrainingState& state);

}  // namespace vlm::train

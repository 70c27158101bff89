// Which step was the best so far, and whether to stop waiting for a better one.
//
// Reference: transformers 5.23, Trainer._determine_best_metric and EarlyStoppingCallback.
#pragma once

#include "train/config/evaluation_config.h"
#include "train/run/training_state.h"

namespace vlm::train {

// Takes the value of an evaluation at state.step into the state; true when it is the best so far.
// Sets has_stopped_early when early_stopping_patience evaluations in a row gained nothing. A value
// that is not a number is never better.
bool take_evaluation(const EvaluationConfig& config, double value, TrainingState& state);

}  // namespace vlm::train

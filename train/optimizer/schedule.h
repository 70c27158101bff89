// Learning-rate schedules as pure functions of the step. Names and values are those of
// transformers.optimization.get_scheduler (5.23).
#pragma once

#include <cstdint>
#include <string>

namespace vlm::train {

struct Schedule {
  // linear, cosine, cosine_with_restarts, constant, constant_with_warmup, warmup_stable_decay
  std::string type = "linear";
  double learning_rate = 0;  // the peak
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;
  // Waves of a cosine; 0: transformers' default, 1 for cosine_with_restarts and else one half.
  double num_cycles = 0;
  // Of warmup_stable_decay: the steps that the decay takes, and where it ends.
  std::int64_t num_decay_steps = 0;
  double min_lr_ratio = 0;
  std::string warmup_type = "linear";  // linear, cosine, 1-sqrt
  std::string decay_type = "cosine";

  // Rate of step 0, 1, …; "constant" has no warm-up.
  double at(std::int64_t step) const;

 private:
  double factor(std::int64_t step) const;
  double warmup_stable_decay(double step) const;
};

}  // namespace vlm::train

// Learning-rate schedules as pure functions of the step. Reference:
// transformers.optimization.get_scheduler (5.23).
#pragma once

#include <cstdint>
#include <string>

namespace vlm::train {

struct Schedule {
  std::string type = "linear";  // linear, cosine, constant, constant_with_warmup
  double learning_rate = 0;     // the peak
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;

  // Rate of step 0, 1, …; "constant" has no warm-up.
  double at(std::int64_t step) const;
};

}  // namespace vlm::train

#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace vlm::train {

double Schedule::at(std::int64_t step) const {
  if (type == "constant") return learning_rate;
  const auto s = static_cast<double>(step), w = static_cast<double>(warmup_steps);
  if (step < warmup_steps) return learning_rate * s / std::max(1.0, w);
  if (type == "constant_with_warmup") return learning_rate;
  const double rest = std::max(1.0, static_cast<double>(total_steps) - w);
  if (type == "cosine") {
    const double progress = (s - w) / rest;
    return learning_rate * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
  }
  return learning_rate * std::max(0.0, (static_cast<double>(total_steps) - s) / rest);
}

}  // namespace vlm::train

#include "train/optimizer/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace vlm::train {
namespace {

// From 1 at 0, by `waves` whole cosine waves at 1.
double cosine(double progress, double waves) {
  return 0.5 * (1.0 + std::cos(std::numbers::pi * waves * 2.0 * progress));
}

double rise(const std::string& type, double progress) {
  if (type == "cosine") return 0.5 * (1.0 - std::cos(std::numbers::pi * progress));
  return type == "1-sqrt" ? 1.0 - std::sqrt(1.0 - progress) : progress;
}

double fall(const std::string& type, double progress, double waves) {
  if (type == "cosine") return cosine(progress, waves);
  return type == "1-sqrt" ? 1.0 - std::sqrt(progress) : 1.0 - progress;
}

}  // namespace

double Schedule::at(std::int64_t step) const {
  return learning_rate * factor(step);
}

double Schedule::factor(std::int64_t step) const {
  const auto s = static_cast<double>(step), warmup = static_cast<double>(warmup_steps);
  if (type == "constant") return 1;
  if (type == "warmup_stable_decay") return warmup_stable_decay(s);
  if (step < warmup_steps) return s / std::max(1.0, warmup);
  if (type == "constant_with_warmup") return 1;
  const double decay_steps = std::max(1.0, static_cast<double>(total_steps) - warmup);
  const double progress = (s - warmup) / decay_steps;
  if (type == "cosine") return std::max(0.0, cosine(progress, num_cycles > 0 ? num_cycles : 0.5));
  if (type == "cosine_with_restarts") {
    if (progress >= 1) return 0;
    const double cycles = num_cycles > 0 ? num_cycles : 1;
    return std::max(0.0, cosine(std::fmod(cycles * progress, 1.0), 0.5));
  }
  return std::max(0.0, (static_cast<double>(total_steps) - s) / decay_steps);
}

double Schedule::warmup_stable_decay(double step) const {
  const auto warmup = static_cast<double>(warmup_steps);
  const auto decay = static_cast<double>(num_decay_steps);
  const double stable = static_cast<double>(total_steps) - warmup - decay;
  const auto from_least = [&](double share) {
    return std::max(0.0, share * (1.0 - min_lr_ratio) + min_lr_ratio);
  };
  if (step < warmup) return from_least(rise(warmup_type, step / std::max(1.0, warmup)));
  if (step < warmup + stable) return 1;
  if (step >= warmup + stable + decay) return min_lr_ratio;
  const double progress = (step - warmup - stable) / std::max(1.0, decay);
  return from_least(fall(decay_type, progress, num_cycles > 0 ? num_cycles : 0.5));
}

}  // namespace vlm::train

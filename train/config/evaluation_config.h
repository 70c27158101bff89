// The config's keys for evaluation, the best step, reports and several processes. They are part of
// TrainConfig. Where transformers' TrainingArguments has such a key, the name is the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/config/fields.h"

namespace vlm::train {

struct EvaluationConfig {
  std::vector<std::string> eval_metrics;
  std::int64_t eval_max_new_tokens = 64;
  std::int64_t eval_max_samples = 0;

  std::string metric_for_best_model;
  std::optional<bool> greater_is_better;
  bool load_best_model_at_end = false;
  std::int64_t early_stopping_patience = 0;
  double early_stopping_threshold = 0;

  std::vector<std::string> report_to = {"tensorboard", "html"};
  std::int64_t report_samples = 8;

  std::int64_t ddp_bucket_cap_mb = 25;
  std::int64_t ddp_timeout = 1800;

  Fields fields();
  // Throws Error naming a key that is out of range, or needs eval_files when there are none.
  void check(bool has_eval_files) const;
  // Throws Error for a key that has no effect in a run with so many evaluations.
  void check_use(std::int64_t evaluations) const;

  // The number that decides which step is best ("eval_loss", "eval_anls"); empty: no step is
  // chosen.
  std::string best_key() const;
  // True when a higher best_key() is better: as greater_is_better says, else for all but a loss.
  bool more_is_better() const;
  bool reports_to(const std::string& target) const;
};

}  // namespace vlm::train

// Keys of the config about evaluation, choosing the best step, reports, and several processes.
// TrainConfig lists them among its own; names are those of transformers' TrainingArguments where it
// has them.
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
  // Throws Error naming the key. `has_eval_files`: whether there is anything to evaluate on.
  void check(bool has_eval_files) const;
  // Throws Error for a key that has nothing to act on in a run of so many evaluations.
  void check_use(std::int64_t evaluations) const;

  // The row's key that decides which step is best ("eval_loss", "eval_anls"); empty: none does.
  std::string best_key() const;
  // Whether more of best_key() is better: greater_is_better, or all but a loss.
  bool more_is_better() const;
  bool reports_to(const std::string& target) const;
};

}  // namespace vlm::train

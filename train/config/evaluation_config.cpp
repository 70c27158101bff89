#include "train/config/evaluation_config.h"

#include <algorithm>

#include "data/metrics/metric.h"
#include "train/config/range_checks.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

}  // namespace

Fields EvaluationConfig::fields() {
  return {
      {"eval_metrics", &eval_metrics,
       concat("Metrics of answers to the questions of eval_files: ", join(data::metric_names()))},
      {"eval_max_new_tokens", &eval_max_new_tokens, "Longest answer in evaluation"},
      {"eval_max_samples", &eval_max_samples,
       "Samples of eval_files that are answered, evenly spread; 0: all"},
      {"metric_for_best_model", &metric_for_best_model,
       "loss, or one of eval_metrics: the checkpoint with the best is kept"},
      {"greater_is_better", &greater_is_better,
       "Whether more of it is better; null: yes but for the loss and cer"},
      {"load_best_model_at_end", &load_best_model_at_end,
       "The result is the best step's, by metric_for_best_model or the loss, not the last's"},
      {"early_stopping_patience", &early_stopping_patience,
       "Stop after so many evaluations in a row without a better value; 0: never"},
      {"early_stopping_threshold", &early_stopping_threshold,
       "How much better it must be to count as such"},
      {"report_to", &report_to,
       "tensorboard: event files in runs/; html: report.html (metrics.jsonl is always written)"},
      {"report_samples", &report_samples, "Held-out samples shown in report.html"},
      {"ddp_bucket_cap_mb", &ddp_bucket_cap_mb,
       "Gradients that several processes sum at once, in MB"},
      {"ddp_timeout", &ddp_timeout, "Seconds that a process waits for the others"},
  };
}

void EvaluationConfig::check(bool has_eval_files) const {
  for (const std::string& name : eval_metrics) data::check_metric_name(name, "eval_metrics");
  const std::string& best = metric_for_best_model;
  const std::string name = best.starts_with("eval_") ? best.substr(5) : best;
  if (!name.empty() && name != "loss" && !contains(eval_metrics, name)) {
    throw Error({.what = "metric is not evaluated",
                 .where = "metric_for_best_model",
                 .got = concat("'", best, "'"),
                 .wanted = concat("loss", eval_metrics.empty() ? "" : " or ", join(eval_metrics)),
                 .hint = "eval_metrics lists what is"});
  }
  for (const std::string& target : report_to) {
    if (target == "tensorboard" || target == "html") continue;
    throw Error({.what = "unknown kind of report",
                 .where = "report_to",
                 .got = concat("'", target, "'"),
                 .wanted = "tensorboard, html"});
  }
  require_count(eval_max_new_tokens, 1, kCountBound, "eval_max_new_tokens");
  require_count(eval_max_samples, 0, kStepBound, "eval_max_samples");
  require_count(early_stopping_patience, 0, kStepBound, "early_stopping_patience");
  require_count(report_samples, 0, kStepBound, "report_samples");
  require_count(ddp_bucket_cap_mb, 1, kCountBound, "ddp_bucket_cap_mb");
  require_count(ddp_timeout, 1, 100 * kCountBound, "ddp_timeout");
  require_between(early_stopping_threshold, 0, 1e9, "early_stopping_threshold");
  if (early_stopping_threshold > 0 && early_stopping_patience == 0) {
    throw Error({.what = "a threshold without early stopping",
                 .where = "early_stopping_threshold",
                 .wanted = "early_stopping_patience"});
  }
  if (greater_is_better && best_key().empty()) {
    throw Error({.what = "nothing is compared",
                 .where = "greater_is_better",
                 .wanted = "metric_for_best_model"});
  }
  const char* asks = early_stopping_patience > 0      ? "early_stopping_patience"
                     : load_best_model_at_end         ? "load_best_model_at_end"
                     : !metric_for_best_model.empty() ? "metric_for_best_model"
                     : !eval_metrics.empty()          ? "eval_metrics"
                                                      : nullptr;
  if (asks && !has_eval_files) {
    throw Error({.what = "no data to evaluate on", .where = asks, .wanted = "eval_files"});
  }
}

void EvaluationConfig::check_use(std::int64_t evaluations) const {
  const std::string got = concat(evaluations, evaluations == 1 ? " evaluation" : " evaluations");
  if (load_best_model_at_end && evaluations < 2) {
    throw Error({.what = "there is nothing to choose from",
                 .where = "load_best_model_at_end",
                 .got = got,
                 .wanted = "at least 2",
                 .hint = "eval_steps says how often it is evaluated"});
  }
  if (early_stopping_patience > 0 && evaluations <= early_stopping_patience) {
    throw Error({.what = "the run ends before it could be stopped early",
                 .where = "early_stopping_patience",
                 .got = got,
                 .wanted = concat("more than ", early_stopping_patience),
                 .hint = "eval_steps says how often it is evaluated"});
  }
}

std::string EvaluationConfig::best_key() const {
  if (metric_for_best_model.empty()) {
    return load_best_model_at_end || early_stopping_patience > 0 ? "eval_loss" : "";
  }
  return metric_for_best_model.starts_with("eval_") ? metric_for_best_model
                                                    : "eval_" + metric_for_best_model;
}

bool EvaluationConfig::more_is_better() const {
  const std::string key = best_key();
  const bool less_is_better =
      key.ends_with("loss") || (key.starts_with("eval_") && data::is_less_better(key.substr(5)));
  return greater_is_better.value_or(!less_is_better);
}

bool EvaluationConfig::reports_to(const std::string& target) const {
  return contains(report_to, target);
}

}  // namespace vlm::train

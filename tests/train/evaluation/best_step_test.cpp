// Which step is best, and early stopping, against transformers' rules.
#include "train/evaluation/best_step.h"

#include <limits>
#include <vector>

#include "tests/support/catch.h"

namespace vlm::train {
namespace {

struct Course {
  std::vector<bool> is_best;
  std::int64_t stopped_at = -1;  // number of the evaluation, from 0
  TrainingState state;
};

Course run(const EvaluationConfig& config, const std::vector<double>& values) {
  Course course;
  for (const double value : values) {
    course.state.step += 10;
    course.is_best.push_back(record_evaluation(config, value, course.state));
    if (course.state.has_stopped_early) {
      course.stopped_at = static_cast<std::int64_t>(course.is_best.size()) - 1;
      break;
    }
  }
  return course;
}

TEST_CASE("less loss is better, more of a metric is, unless said otherwise") {
  const Course loss = run({.metric_for_best_model = "loss"}, {3, 2, 2, 2.5, 1});
  CHECK(loss.is_best == std::vector<bool>{true, true, false, false, true});
  CHECK(loss.state.best_step == 50);
  CHECK(loss.state.best_value == 1);
  const EvaluationConfig anls{.eval_metrics = {"anls"}, .metric_for_best_model = "anls"};
  CHECK(run(anls, {0.1, 0.3, 0.2}).state.best_step == 20);
  EvaluationConfig turned = anls;
  turned.greater_is_better = false;
  CHECK(run(turned, {0.1, 0.3, 0.05}).state.best_step == 30);
  const EvaluationConfig cer{.eval_metrics = {"cer"}, .metric_for_best_model = "cer"};
  CHECK(run(cer, {0.3, 0.1, 0.2}).state.best_step == 20);
  CHECK(anls.best_key() == "eval_anls");
  CHECK(EvaluationConfig{}.best_key().empty());
  CHECK(EvaluationConfig{.load_best_model_at_end = true}.best_key() == "eval_loss");
}

TEST_CASE("waiting ends after so many evaluations without a gain over the threshold") {
  const Course plain = run({.metric_for_best_model = "loss", .early_stopping_patience = 2},
                           {5, 4, 4.5, 3, 3.1, 3.2, 1});
  CHECK(plain.stopped_at == 5);
  CHECK(plain.state.best_step == 40);
  // Small gains are kept as the best, but don't count: each is compared with the best before it.
  const Course slow = run({.metric_for_best_model = "loss",
                           .early_stopping_patience = 3,
                           .early_stopping_threshold = 0.5},
                          {5, 4.8, 4.6, 4.4, 1});
  CHECK(slow.stopped_at == 3);
  CHECK(slow.state.best_step == 40);
  CHECK(run({.metric_for_best_model = "loss"}, {1, 2, 3, 4}).stopped_at == -1);
}

TEST_CASE("what is not a number is never better") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Course course = run({.metric_for_best_model = "loss"}, {nan, 2, nan});
  CHECK(course.is_best == std::vector<bool>{false, true, false});
  CHECK(course.state.best_step == 20);
}

TEST_CASE("keys of evaluation that can't work are refused by name") {
  const auto check = [](const EvaluationConfig& config) { config.check(/*has_eval_files=*/true); };
  CHECK_NOTHROW(check({.eval_metrics = {"anls", "cider"}, .metric_for_best_model = "eval_cider"}));
  CHECK_THROWS_WITH(check({.eval_metrics = {"bleu"}}),
                    Contains("eval_metrics: unknown metric: got 'bleu', wanted exact_match"));
  CHECK_THROWS_WITH(check({.eval_metrics = {"anls"}, .metric_for_best_model = "cider"}),
                    "metric_for_best_model: metric is not evaluated: got 'cider', wanted loss or "
                    "anls (eval_metrics lists what is)");
  CHECK_THROWS_WITH(check({.report_to = {"wandb"}}),
                    "report_to: unknown kind of report: got 'wandb', wanted tensorboard, html");
  CHECK_THROWS_WITH(check({.eval_max_new_tokens = 0}),
                    "eval_max_new_tokens: value out of range: got 0, wanted at least 1");
  CHECK_THROWS_WITH(check({.early_stopping_threshold = -1}),
                    Contains("early_stopping_threshold: value out of range: got -1, wanted 0 to"));
  CHECK_THROWS_WITH(check({.early_stopping_threshold = 0.1}),
                    "early_stopping_threshold: a threshold without early stopping: wanted "
                    "early_stopping_patience");
  CHECK_THROWS_WITH(check({.greater_is_better = true}),
                    "greater_is_better: nothing is compared: wanted metric_for_best_model");
  CHECK_THROWS_WITH((EvaluationConfig{.eval_metrics = {"anls"}}.check(false)),
                    "eval_metrics: no data to evaluate on: wanted eval_files");
  CHECK_THROWS_WITH((EvaluationConfig{.early_stopping_patience = 2}.check(false)),
                    "early_stopping_patience: no data to evaluate on: wanted eval_files");
  CHECK_THROWS_WITH((EvaluationConfig{.load_best_model_at_end = true}.check(false)),
                    "load_best_model_at_end: no data to evaluate on: wanted eval_files");
  CHECK_THROWS_WITH((EvaluationConfig{.metric_for_best_model = "loss"}.check(false)),
                    "metric_for_best_model: no data to evaluate on: wanted eval_files");
}

TEST_CASE("early stopping and the choice of the best need evaluations to act on") {
  const EvaluationConfig best{.load_best_model_at_end = true};
  CHECK_NOTHROW(best.check_use(2));
  CHECK_THROWS_WITH(best.check_use(1),
                    "load_best_model_at_end: there is nothing to choose from: got 1 evaluation, "
                    "wanted at least 2 (eval_steps says how often it is evaluated)");
  const EvaluationConfig patient{.early_stopping_patience = 3};
  CHECK_NOTHROW(patient.check_use(4));
  CHECK_THROWS_WITH(patient.check_use(3),
                    "early_stopping_patience: the run ends before it could be stopped early: got 3 "
                    "evaluations, wanted more than 3 (eval_steps says how often it is evaluated)");
  CHECK_NOTHROW(EvaluationConfig{}.check_use(0));
}

}  // namespace
}  // namespace vlm::train

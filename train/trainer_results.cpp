// What a run leaves behind its steps: checkpoints, evaluations, the result and the reports about
// it.
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include <torch/nn/module.h>

#include "data/media/media_ref.h"
#include "train/evaluation/best_step.h"
#include "train/plan/run_plan.h"
#include "train/report/html_report.h"
#include "train/report/model_card.h"
#include "train/trainer.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::train {

namespace fs = std::filesystem;

namespace {

fs::path report_path(const TrainConfig& config) {
  return fs::path(config.output_dir) / "report.html";
}

}  // namespace

// Whatever comes last can't cost what was learned: the result and the checkpoint are written before
// the evaluation begins.
bool Trainer::end_step() {
  const bool is_last = state_.step == data_.plan->total_steps();
  const bool is_due = config_.save_steps > 0 && state_.step % config_.save_steps == 0;
  if (is_last) save_result();
  if (is_due || (is_last && saves_checkpoints())) save_checkpoint();
  return !is_evaluated(state_.step) || evaluate();
}

bool Trainer::is_evaluated(std::int64_t step) const {
  if (!evaluator_) return false;
  return step == data_.plan->total_steps() ||
         (config_.eval_steps > 0 && step % config_.eval_steps == 0);
}

// The model before training, on the items that it will be compared on.
bool Trainer::evaluate_start() {
  if (state_.step > 0 || !evaluator_ || config_.evaluation.eval_metrics.empty()) return true;
  const std::optional<Evaluation> made = evaluator_->evaluate(0);
  if (!made) return false;
  metrics_->write(made->row);
  if (job_->is_writer()) save_answers(before_path(config_.output_dir), made->answers);
  return true;
}

bool Trainer::evaluate() {
  const std::optional<Evaluation> made = evaluator_->evaluate(state_.step);
  if (!made) return false;
  metrics_->write(made->row);
  if (job_->is_writer() && !made->answers.empty()) {
    save_answers(answers_path(config_.output_dir), made->answers);
  }
  state_.evaluated_step = state_.step;
  const std::string key = config_.evaluation.best_key();
  const bool is_best =
      !key.empty() && record_evaluation(config_.evaluation, made->row.at(key), state_);
  if (state_.has_stopped_early) {
    log_info(
        concat("stops at step ", state_.step, ": ", key, " was best at step ", state_.best_step));
  }
  const bool is_kept = saved_step_ == state_.step;
  if (is_best || is_kept || state_.has_stopped_early) save_checkpoint();
  update_report();
  return true;
}

TrainResult Trainer::stop() {
  if (state_.step == 0) {
    log_info("stopped before the first step; the same command begins anew");
  } else if (!is_sound_) {  // behind the last step
    log_info("stopped when the result was written; the same command does what is left");
  } else {
    save_checkpoint();
    update_report();
    log_info(concat("stopped at step ", state_.step, "; the same command goes on from here"));
  }
  return TrainResult::kInterrupted;
}

void Trainer::save_learned() {
  if (!is_sound_ || state_.step == saved_step_ || !job_->is_writer()) return;
  try {
    save_checkpoint();
    log_info(concat("saved ", checkpoint_path(config_.output_dir, state_.step).string(),
                    ": the same command goes on from there"));
  } catch (const std::exception& error) {
    log_warning(concat("what was learned since step ", saved_step_, " is lost: ", error.what()));
  }
}

bool Trainer::saves_checkpoints() const {
  return config_.save_steps > 0 || !config_.evaluation.best_key().empty();
}

void Trainer::save_checkpoint() {
  check_finite(optimizer_->parameters());
  check_finite(optimizer_->state());
  if (folder_) {
    const CheckpointWriter writer{
        .output_dir = config_.output_dir,
        .config = effective_config_,
        .save_total_limit = config_.save_total_limit,
        .save_result = [&](const fs::path& to) { save_trained_model(trained_, config_, to); },
        .is_whole_model = !config_.trains_adapter(),
        .inputs = to_text(folder_->inputs())};
    if (saved_step_ == state_.step) {
      writer.update(state_);
    } else {
      writer.save(state_, *optimizer_);
    }
  }
  saved_step_ = state_.step;
}

// The values of the next step decide whether it is made: the weights stay as they were.
void Trainer::check_number(double value, const char* name) const {
  if (std::isfinite(value)) return;
  throw Error({.what = concat("the ", name, " is not finite"),
               .where = concat("step ", state_.step + 1),
               .got = std::isnan(value) ? "nan" : concat(value),
               .hint = resume_hint(state_.step)});
}

std::string Trainer::resume_hint(std::int64_t saved) const {
  const std::string anew = "try a lower learning_rate with --restart";
  if (saved == 0) return anew;
  return concat(anew, ", or go on from ", checkpoint_path(config_.output_dir, saved).string(),
                " as ", config_.trains_adapter() ? "adapter" : "model_name_or_path",
                " of another run");
}

// What isn't finite is never written: the last checkpoint is worth more.
void Trainer::check_finite(const NamedTensors& tensors) {
  const std::string name = find_not_finite(tensors);
  if (name.empty()) return;
  is_sound_ = false;
  throw Error({.what = "a value is not finite, so nothing is saved",
               .where = concat("step ", state_.step, ": ", name),
               .hint = resume_hint(saved_step_)});
}

void Trainer::save_result() {
  const std::int64_t step = result_step_.value_or(state_.step);
  if (written_step_ == step) return;
  check_finite(optimizer_->parameters());
  if (job_->is_writer()) save_trained_model(trained_, config_, config_.output_dir);
  written_step_ = step;
}

TrainResult Trainer::finish() {
  save_result();
  trained_.model->module().eval();
  if (!restore_best()) return stop();
  if (!job_->is_writer()) return TrainResult::kFinished;
  if (const double planned = planned_peak_mb(config_.output_dir, effective_config_); planned > 0) {
    const double measured = device_.is_cpu() ? peak_rss_mb() : peak_device_mb(device_);
    log_info(concat(
        device_.is_cpu() ? "peak memory: " : "peak memory of the GPU: ", std::llround(measured),
        " MB measured, ", std::llround(planned), " MB planned"));
  }
  save_text(fs::path(config_.output_dir) / "README.md", make_model_card(load_record()));
  write_report();
  if (config_.evaluation.reports_to("html")) {
    log_info("the result on one page: " + report_path(config_).string());
  }
  return TrainResult::kFinished;
}

// Makes the best step's weights the result; false when told to stop.
bool Trainer::restore_best() {
  const bool is_earlier = config_.evaluation.load_best_model_at_end && state_.best_step >= 0 &&
                          state_.best_step != state_.step;
  if (!is_earlier) return true;
  is_sound_ = false;
  if (job_->is_writer()) {
    load_trained_weights(
        checkpoint_path(config_.output_dir, state_.best_step), *optimizer_,
        [&](const std::string& name) { return trained_.model->published_key(name); });
  }
  job_->broadcast(optimizer_->parameters());
  result_step_ = state_.best_step;
  save_result();
  log_info(concat("the result is that of step ", state_.best_step));
  if (config_.evaluation.eval_metrics.empty()) return true;
  const std::optional<Evaluation> made = evaluator_->evaluate(state_.best_step);
  if (!made) return false;
  if (job_->is_writer()) save_answers(answers_path(config_.output_dir), made->answers);
  trained_.model->module().eval();
  return true;
}

RunRecord Trainer::load_record() const {
  RunRecord record = load_run_record(config_.output_dir, effective_config_);
  record.result_step = result_step_;
  return record;
}

void Trainer::write_report() const {
  if (!job_->is_writer() || !config_.evaluation.reports_to("html")) return;
  const auto media = [this](std::int64_t index) -> std::vector<data::MediaRef> {
    // Answers that were written by hand may be about anything.
    if (!data_.eval_dataset || index < 0 || index >= data_.eval_dataset->size()) return {};
    return data_.eval_dataset->at(index).media;
  };
  save_text(
      report_path(config_),
      make_report(load_record(), {.samples = config_.evaluation.report_samples, .media = media}));
}

// In the middle of a run a report is worth less than the run.
void Trainer::update_report() const {
  try {
    write_report();
  } catch (const std::exception& error) {
    log_warning(concat("the report is not up to date: ", error.what()));
  }
}

}  // namespace vlm::train

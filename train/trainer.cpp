#include "train/trainer.h"

#include <ATen/Context.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "train/evaluation.h"
#include "train/loss.h"
#include "train/step_loader.h"
#include "train/step_log.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"

namespace vlm::train {

namespace fs = std::filesystem;

Trainer::Trainer(TrainConfig config, const TrainOptions& options)
    : config_(std::move(config)), options_(options) {
  if (options_.runtime.seed) config_.seed = *options_.runtime.seed;
  effective_config_ = write_fields(config_.fields());
  const at::Device device = prepare_runtime(options_.runtime);
  trained_ = load_trained_model(config_, options_.runtime, device);
  optimizer_ = make_optimizer(config_, trained_.trainable);
  data_ = load_training_data(config_);
  schedule_ = make_schedule(config_, data_.plan->total_steps());
  resume();
}

Trainer::~Trainer() = default;

void Trainer::resume() {
  const fs::path output_dir = config_.output_dir;
  fs::create_directories(output_dir);
  const auto checkpoint = options_.restart ? std::nullopt : find_checkpoint(output_dir);
  if (checkpoint) {
    state_ = load_training_state(*checkpoint, effective_config_);
    const c10::NoGradGuard no_grad;
    const SafetensorsFile weights(*checkpoint / "trained.safetensors");
    for (const auto& [name, parameter] : optimizer_->parameters()) {
      at::Tensor(parameter).copy_(weights.tensor(name));
    }
    optimizer_->load_state(SafetensorsFile(*checkpoint / "optimizer.safetensors"));
    log_info(concat("goes on from ", checkpoint->string()));
  } else if (options_.restart) {
    for (auto old = find_checkpoint(output_dir); old; old = find_checkpoint(output_dir)) {
      fs::remove_all(*old);
    }
  }
  save_text(output_dir / "train_config.json", effective_config_.dump(2) + "\n");
  metrics_ = std::make_unique<MetricsLog>(output_dir / "metrics.jsonl", state_.step);
  skipped_ = std::make_unique<data::SkippedSamples>(
      config_.max_bad_samples, output_dir / "skipped_samples.jsonl", state_.step > 0);
}

TrainResult Trainer::run() {
  const LoaderOptions loader_options{
      .batch_size = config_.per_device_train_batch_size,
      .encode = config_.encode_options(),
      .seed = mix_seed(static_cast<std::uint64_t>(config_.seed), kAugmentStream),
      .skipped = skipped_.get()};
  StepLoader loader(*data_.plan, data_.datasets, *trained_.processor, loader_options, state_.step);
  const CheckpointWriter writer{.output_dir = config_.output_dir,
                                .config = effective_config_,
                                .save_total_limit = config_.save_total_limit,
                                .save_weights = [this](const fs::path& folder) {
                                  save_safetensors(folder / "trained.safetensors",
                                                   optimizer_->parameters());
                                }};
  const std::int64_t total = data_.plan->total_steps();
  Progress progress("steps", total, state_.step);
  StepLog log(state_, *metrics_, config_.logging_steps);
  trained_.model->train();
  while (state_.step < total) {
    if (stop_requested()) {
      writer.save(state_, *optimizer_);
      log_info(concat("stopped at step ", state_.step, "; the same command goes on from here"));
      return TrainResult::kInterrupted;
    }
    const StepData step = loader.next();
    StepFigures figures{.learning_rate = schedule_.at(state_.step),
                        .epoch = data_.plan->epoch_at(state_.step),
                        .samples = step.sample_count};
    figures.loss = train_step(step, figures.grad_norm);
    ++state_.step;
    const bool is_last = state_.step == total;
    log.add(figures, is_last);
    const bool eval_now = config_.eval_steps > 0 && state_.step % config_.eval_steps == 0;
    if (eval_now || is_last) evaluate();
    const bool save_now = config_.save_steps > 0 && state_.step % config_.save_steps == 0;
    if (save_now || (is_last && config_.save_steps > 0)) writer.save(state_, *optimizer_);
    progress.update(state_.step, concat("loss ", figures.loss));
  }
  trained_.model->eval();
  save_trained_model(trained_, config_, config_.output_dir);
  return TrainResult::kFinished;
}

double Trainer::train_step(const StepData& data, double& grad_norm) {
  // Dropout draws from the default generators; seeding them by step makes a resumed run exact.
  at::manual_seed(mix_seed(static_cast<std::uint64_t>(config_.seed), kDropoutStream,
                           static_cast<std::uint64_t>(state_.step)));
  double loss = 0;
  for (const data::Batch& batch : data.batches) {
    const at::Tensor part =
        loss_sum(*trained_.model, batch) / static_cast<double>(data.label_count);
    part.backward();
    loss += part.item<double>();
  }
  if (!std::isfinite(loss)) {
    throw Error({.what = "the loss is not finite",
                 .where = concat("step ", state_.step + 1),
                 .got = concat(loss),
                 .hint = "try a lower learning_rate"});
  }
  grad_norm = clip_grad_norm(optimizer_->parameters(), config_.max_grad_norm);
  optimizer_->step(schedule_.at(state_.step));
  optimizer_->zero_grad();
  return loss;
}

void Trainer::evaluate() {
  if (!data_.eval_dataset) return;
  data::EncodeOptions encode = config_.encode_options();
  encode.augmentation = {};
  const double loss = evaluate_loss(*trained_.model, *trained_.processor, *data_.eval_dataset,
                                    {.batch_size = config_.per_device_eval_batch_size,
                                     .encode = encode,
                                     .skipped = skipped_.get()});
  metrics_->write({{"step", state_.step}, {"eval_loss", loss}});
}

}  // namespace vlm::train

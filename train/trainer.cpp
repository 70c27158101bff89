#include "train/trainer.h"

#include <ATen/Context.h>
#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "train/batches/step_loader.h"
#include "train/evaluation.h"
#include "train/loss.h"
#include "train/plan/run_plan.h"
#include "train/step_log.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"
#include "vlm/models/picture_cache.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora.h"

namespace vlm::train {

namespace fs = std::filesystem;

Trainer::Trainer(TrainConfig config, const TrainOptions& options)
    : config_(std::move(config)), options_(options) {
  if (options_.runtime.seed) config_.seed = *options_.runtime.seed;
  if (config_.memory_gb > 0) make_fit(config_, options_.runtime);
  effective_config_ = write_fields(config_.fields());
  const at::Device device = prepare_runtime(options_.runtime);
  trained_ = load_trained_model(config_, options_.runtime, device);
  optimizer_ = make_optimizer(config_, trained_);
  data_ = load_training_data(config_, *trained_.processor);
  open_pictures(device);
  schedule_ = config_.schedule(data_.plan->total_steps());
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

void Trainer::open_pictures(at::Device device) {
  const bool may_keep = config_.augmentation.is_off() && !trains_pictures(*trained_.model);
  std::shared_ptr<FeatureCache> cache;
  if (may_keep) {
    cache = open_feature_cache({config_.feature_cache, config_.feature_cache_gb}, *trained_.model);
  }
  if (cache) log_info("picture features are kept in " + cache->folder().string());
  pictures_ = std::make_unique<PictureStore>(cache, *trained_.model, *trained_.processor);
  device_ = device;
}

// Once every picture's features came from the cache for a whole epoch, or were put there, the
// vision tower is not needed any more.
void Trainer::release_tower() {
  const bool is_adapter = config_.method == "lora" || config_.method == "dora";
  const bool is_new_epoch = data_.plan->epoch_at(state_.step) >= 1;
  if (!is_adapter || !is_new_epoch || !pictures_->has_cache() || pictures_->is_released()) return;
  pictures_->release_tower(*trained_.model, [this] {
    return load_model(trained_.folder,
                      base_options(config_, trained_.lora, options_.runtime, device_));
  });
}

LoaderOptions Trainer::loader_options() const {
  LoaderOptions options{.batch_size = config_.per_device_train_batch_size,
                        .encode = config_.encode_options(),
                        .seed = mix_seed(static_cast<std::uint64_t>(config_.seed), kAugmentStream),
                        .workers = config_.dataloader_num_workers,
                        .skipped = skipped_.get()};
  options.encode.lookup = pictures_.get();
  if (config_.packing) {
    options.packing = {.max_tokens = config_.max_tokens_per_batch,
                       .max_tiles = config_.max_tiles_per_batch,
                       .share_pictures = config_.share_pictures,
                       .image_token_id = trained_.model->image_token_id()};
  }
  return options;
}

TrainResult Trainer::run() {
  StepLoader loader(*data_.plan, data_.datasets, *trained_.processor, loader_options(),
                    state_.step);
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
  trained_.model->module().train();
  while (state_.step < total) {
    if (stop_requested()) {
      writer.save(state_, *optimizer_);
      log_info(concat("stopped at step ", state_.step, "; the same command goes on from here"));
      return TrainResult::kInterrupted;
    }
    release_tower();
    const auto asked_at = std::chrono::steady_clock::now();
    const StepData step = loader.next();
    const std::chrono::duration<double> wait = std::chrono::steady_clock::now() - asked_at;
    StepFigures figures{.learning_rate = schedule_.at(state_.step),
                        .epoch = data_.plan->epoch_at(state_.step),
                        .samples = step.sample_count,
                        .tokens = step.token_count,
                        .slots = step.slot_count,
                        .data_wait_s = wait.count()};
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
  trained_.model->module().eval();
  pictures_->restore_tower(*trained_.model);
  if (const double planned = planned_peak_mb(config_.output_dir); planned > 0) {
    log_info(concat("peak memory: ", std::llround(peak_rss_mb()), " MB measured, ",
                    std::llround(planned), " MB planned"));
  }
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
        loss_sum(*trained_.model, batch, pictures_.get()) / static_cast<double>(data.label_count);
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
                                     .skipped = skipped_.get(),
                                     .pictures = pictures_.get()});
  metrics_->write({{"step", state_.step}, {"eval_loss", loss}});
}

}  // namespace vlm::train

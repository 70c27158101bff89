#include "train/trainer.h"

#include <ATen/Context.h>
#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/media/media_ref.h"
#include "data/media/thumbnail.h"
#include "train/batches/step_loader.h"
#include "train/evaluation/best_step.h"
#include "train/loss.h"
#include "train/plan/run_plan.h"
#include "train/report/html_report.h"
#include "train/report/model_card.h"
#include "train/step_log.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"
#include "vlm/models/picture_cache.h"
#include "vlm/models/registry.h"

namespace vlm::train {

namespace fs = std::filesystem;

namespace {

// A step takes the same samples however many processes share them; the number of forward passes
// follows.
void check_step_size(const TrainingState& found, const TrainingState& asked, std::int64_t per_pass,
                     const fs::path& checkpoint) {
  if (found.processes == asked.processes && found.samples_per_step != asked.samples_per_step) {
    throw Error({.what = "the run to be resumed had another config",
                 .where = checkpoint.string(),
                 .got = "other values of gradient_accumulation_steps",
                 .hint = "use another output_dir, or --restart to begin anew"});
  }
  if (found.samples_per_step % per_pass == 0) return;
  throw Error({.what = "a step can't be split over the processes",
               .where = checkpoint.string(),
               .got = concat(found.samples_per_step, " samples a step"),
               .wanted = concat("a multiple of the ", per_pass, " samples that ", asked.processes,
                                " processes take in a pass")});
}

}  // namespace

Trainer::Trainer(TrainConfig config, const TrainOptions& options)
    : config_(std::move(config)), options_(options) {
  if (options_.runtime.seed) config_.seed = *options_.runtime.seed;
  if (config_.memory_gb > 0) make_fit(config_, options_.runtime);
  effective_config_ = write_fields(config_.fields());
  job_ = join_job({.timeout_s = static_cast<double>(config_.evaluation.ddp_timeout),
                   .bucket_mb = config_.evaluation.ddp_bucket_cap_mb});
  find_start();
  const at::Device device =
      choose_local_device(prepare_runtime(options_.runtime), options_.runtime.device);
  trained_ = load_trained_model(config_, options_.runtime, device);
  optimizer_ = make_optimizer(config_, trained_);
  data_ = load_training_data(config_, *trained_.processor, job_->size());
  open_pictures(device);
  schedule_ = config_.schedule(data_.plan->total_steps());
  load_start();
}

Trainer::~Trainer() = default;

// Where the run goes on: rank 0 looks, as the folder may be on its machine alone.
void Trainer::find_start() {
  const fs::path output_dir = config_.output_dir;
  const std::int64_t per_pass = config_.per_device_train_batch_size * job_->size();
  state_.samples_per_step = per_pass * config_.gradient_accumulation_steps;
  state_.processes = job_->size();
  if (job_->is_writer()) {
    make_folders(output_dir);
    clean_checkpoints(output_dir, options_.restart);
    if (const auto checkpoint = find_checkpoint(output_dir)) {
      const TrainingState found = load_training_state(*checkpoint, effective_config_);
      check_step_size(found, state_, per_pass, *checkpoint);
      state_ = found;
      state_.processes = job_->size();
      log_info(concat("goes on from ", checkpoint->string()));
    }
  }
  const std::string shared = job_->broadcast(write_fields(state_.fields()).dump());
  read_fields(Json::parse(shared), state_.fields(), UnknownKeys::kRefuse, "rank 0");
  // The same samples a step, whatever the number of processes.
  config_.gradient_accumulation_steps = state_.samples_per_step / per_pass;
}

void Trainer::load_start() {
  const fs::path output_dir = config_.output_dir;
  if (job_->is_writer() && state_.step > 0) {
    load_weights_and_optimizer(checkpoint_path(output_dir, state_.step), *optimizer_);
  }
  job_->broadcast(optimizer_->parameters());
  if (state_.step > 0) job_->broadcast(optimizer_->state());
  std::unique_ptr<TensorboardLog> tensorboard;
  if (job_->is_writer()) {
    save_text(output_dir / "train_config.json", effective_config_.dump(2) + "\n");
    if (config_.evaluation.reports_to("tensorboard")) {
      tensorboard = std::make_unique<TensorboardLog>(output_dir / "runs", state_.step);
    }
  }
  metrics_ =
      std::make_unique<MetricsLog>(job_->is_writer() ? output_dir / "metrics.jsonl" : fs::path(),
                                   state_.step, std::move(tensorboard));
  // Each process counts those of its own share; rank 0 lists them.
  skipped_ = job_->is_writer() ? std::make_unique<data::SkippedSamples>(
                                     config_.max_bad_samples, output_dir / "skipped_samples.jsonl",
                                     state_.step > 0)
                               : std::make_unique<data::SkippedSamples>(config_.max_bad_samples);
  if (!data_.eval_dataset) return;
  evaluator_ = std::make_unique<Evaluator>(EvaluatorParts{.config = config_,
                                                          .trained = trained_,
                                                          .pictures = *pictures_,
                                                          .dataset = *data_.eval_dataset,
                                                          .skipped = *skipped_,
                                                          .job = *job_,
                                                          .answer = options_.answer});
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
                        .skipped = skipped_.get(),
                        .rank = job_->rank(),
                        .ranks = job_->size()};
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
  evaluate_start();
  StepLoader loader(*data_.plan, data_.datasets, *trained_.processor, loader_options(),
                    state_.step);
  const std::int64_t total = data_.plan->total_steps();
  std::optional<Progress> progress;
  if (job_->is_writer()) progress.emplace("steps", total, state_.step);
  StepLog log(state_, *metrics_, config_.logging_steps);
  trained_.model->module().train();
  while (state_.step < total && !state_.has_stopped_early) {
    release_tower();
    const auto asked_at = std::chrono::steady_clock::now();
    const StepData step = loader.next();
    const std::chrono::duration<double> wait = std::chrono::steady_clock::now() - asked_at;
    // What all processes must agree on before they begin the step.
    const auto sums =
        job_->sum({static_cast<double>(step.label_count), stop_requested() ? 1.0 : 0.0,
                   static_cast<double>(step.token_count), static_cast<double>(step.slot_count)});
    if (sums[1] > 0) {
      save_checkpoint();
      write_report();
      log_info(concat("stopped at step ", state_.step, "; the same command goes on from here"));
      return TrainResult::kInterrupted;
    }
    StepFigures figures{.learning_rate = schedule_.at(state_.step),
                        .epoch = data_.plan->epoch_at(state_.step),
                        .samples = step.sample_count,
                        .tokens = static_cast<std::int64_t>(sums[2]),
                        .slots = static_cast<std::int64_t>(sums[3]),
                        .data_wait_s = wait.count()};
    figures.loss = train_step(step, sums[0], figures.grad_norm);
    ++state_.step;
    const bool is_last = state_.step == total;
    log.add(figures, is_last);
    const bool eval_now = config_.eval_steps > 0 && state_.step % config_.eval_steps == 0;
    const bool is_best = (eval_now || is_last) && evaluate();
    const bool save_now = config_.save_steps > 0 && state_.step % config_.save_steps == 0;
    const bool is_end = is_last || state_.has_stopped_early;
    if (save_now || is_best || (is_end && saves_checkpoints())) save_checkpoint();
    if (progress) progress->update(state_.step, concat("loss ", figures.loss));
  }
  finish();
  return TrainResult::kFinished;
}

double Trainer::train_step(const StepData& data, double labels, double& grad_norm) {
  const std::uint64_t seed = mix_seed(static_cast<std::uint64_t>(config_.seed), kDropoutStream,
                                      static_cast<std::uint64_t>(state_.step));
  auto number = static_cast<std::uint64_t>(job_->rank());  // of the batch, among all processes'
  double loss = 0;
  for (const data::Batch& batch : data.batches) {
    // Dropout draws from the default generators; seeding them by step and batch makes a resumed
    // run exact, and several processes draw what one would.
    at::manual_seed(mix_seed(seed, number));
    number += static_cast<std::uint64_t>(job_->size());
    const at::Tensor part = loss_sum(*trained_.model, batch, pictures_.get()) / labels;
    part.backward();
    loss += part.item<double>();
  }
  job_->sum_gradients(optimizer_->parameters());
  loss = job_->sum({loss})[0];
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

// The model before training, on the items that it will be compared on.
void Trainer::evaluate_start() {
  if (state_.step > 0 || !evaluator_ || config_.evaluation.eval_metrics.empty()) return;
  const Evaluation made = evaluator_->evaluate(0);
  metrics_->write(made.row);
  if (job_->is_writer()) save_answers(before_path(config_.output_dir), made.answers);
}

bool Trainer::evaluate() {
  if (!evaluator_) return false;
  const Evaluation made = evaluator_->evaluate(state_.step);
  metrics_->write(made.row);
  if (job_->is_writer() && !made.answers.empty()) {
    save_answers(answers_path(config_.output_dir), made.answers);
  }
  const std::string key = config_.evaluation.best_key();
  const bool is_best = !key.empty() && take_evaluation(config_.evaluation, made.row[key], state_);
  if (state_.has_stopped_early) {
    log_info(
        concat("stops at step ", state_.step, ": ", key, " was best at step ", state_.best_step));
  }
  write_report();
  return is_best;
}

bool Trainer::saves_checkpoints() const {
  return config_.save_steps > 0 || !config_.evaluation.best_key().empty();
}

void Trainer::save_checkpoint() const {
  if (!job_->is_writer()) return;
  const CheckpointWriter writer{.output_dir = config_.output_dir,
                                .config = effective_config_,
                                .save_total_limit = config_.save_total_limit};
  writer.save(state_, *optimizer_);
}

void Trainer::finish() {
  trained_.model->module().eval();
  pictures_->restore_tower(*trained_.model);
  const bool takes_best = config_.evaluation.load_best_model_at_end && state_.best_step >= 0 &&
                          state_.best_step != state_.step;
  if (takes_best) {
    if (job_->is_writer()) {
      load_trained_weights(checkpoint_path(config_.output_dir, state_.best_step), *optimizer_);
    }
    job_->broadcast(optimizer_->parameters());
    result_step_ = state_.best_step;
    log_info(concat("the result is that of step ", state_.best_step));
    if (!config_.evaluation.eval_metrics.empty()) {
      const auto answers = evaluator_->evaluate(state_.best_step).answers;
      if (job_->is_writer()) save_answers(answers_path(config_.output_dir), answers);
      trained_.model->module().eval();
    }
  }
  if (!job_->is_writer()) return;
  if (const double planned = planned_peak_mb(config_.output_dir); planned > 0) {
    log_info(concat("peak memory: ", std::llround(peak_rss_mb()), " MB measured, ",
                    std::llround(planned), " MB planned"));
  }
  save_trained_model(trained_, config_, config_.output_dir);
  save_text(fs::path(config_.output_dir) / "README.md", make_model_card(load_record()));
  write_report();
}

RunRecord Trainer::load_record() const {
  RunRecord record = load_run_record(config_.output_dir, effective_config_);
  record.result_step = result_step_;
  return record;
}

void Trainer::write_report() const {
  if (!job_->is_writer() || !config_.evaluation.reports_to("html")) return;
  const auto pictures = [this](std::int64_t index) {
    constexpr std::int64_t kLongestSide = 440;
    std::vector<std::string> uris;
    for (const data::MediaRef& medium : data_.eval_dataset->at(index).media) {
      if (medium.kind != data::MediaKind::kPicture) continue;
      uris.push_back(data::make_thumbnail_uri(data::load_picture(medium), kLongestSide));
    }
    return uris;
  };
  save_text(fs::path(config_.output_dir) / "report.html",
            make_report(load_record(),
                        {.samples = config_.evaluation.report_samples, .pictures = pictures}));
}

}  // namespace vlm::train

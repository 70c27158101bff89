#include "train/trainer.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "data/media/media_ref.h"
#include "train/batches/split_batch.h"
#include "train/batches/step_loader.h"
#include "train/config/effective_config.h"
#include "train/evaluation/best_step.h"
#include "train/model/loss.h"
#include "train/report/html_report.h"
#include "train/report/model_card.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/progress.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/models/picture_cache.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

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

// The values of two numbers of one device, 0 for those that are undefined. One read, as a read
// waits for the device.
std::pair<double, double> read_together(const at::Tensor& a, const at::Tensor& b) {
  std::vector<at::Tensor> there;
  for (const at::Tensor& number : {a, b}) {
    if (number.defined()) there.push_back(number.to(at::kDouble));
  }
  if (there.empty()) return {0, 0};
  const at::Tensor values = at::stack(there).cpu();
  const double last = values[-1].item<double>();
  return {a.defined() ? values[0].item<double>() : 0, b.defined() ? last : 0};
}

}  // namespace

Trainer::Trainer(TrainConfig config, const TrainOptions& options)
    : config_(std::move(config)), options_(options) {
  if (options_.runtime.seed) config_.seed = *options_.runtime.seed;
  // First the others, so that they notice what ends this process.
  job_ = join_job({.timeout_s = static_cast<double>(config_.evaluation.ddp_timeout)});
  if (job_->is_writer()) folder_ = std::make_unique<RunFolder>(config_.output_dir);
  if (config_.memory_gb > 0) {
    plan_ = make_fit(config_, options_.runtime, job_->size());
    // Each process has measured for itself.
    config_.gradient_checkpointing = job_->sum({config_.gradient_checkpointing ? 1.0 : 0.0})[0] > 0;
  }
  effective_config_ = effective_config(config_);
  find_start();
  const at::Device device =
      choose_local_device(prepare_runtime(options_.runtime), options_.runtime.device);
  trained_ = load_trained_model(config_, options_.runtime, device);
  optimizer_ = make_optimizer(config_, trained_);
  sums_ = std::make_unique<GradientSums>(*job_, optimizer_->parameters(),
                                         config_.evaluation.ddp_bucket_cap_mb * 1'000'000);
  data_ = load_training_data(config_, *trained_.processor, job_->size());
  open_pictures(device);
  const std::int64_t total = data_.plan->total_steps();
  const std::int64_t every = config_.eval_steps > 0 ? config_.eval_steps : total;
  config_.evaluation.check_use((total + every - 1) / every);
  schedule_ = config_.schedule(total);
  load_start();
}

Trainer::~Trainer() = default;

// Where the run goes on: rank 0 looks, as the folder may be on its machine alone.
void Trainer::find_start() {
  const fs::path output_dir = config_.output_dir;
  const std::int64_t per_pass = config_.per_device_train_batch_size * job_->size();
  state_.samples_per_step = per_pass * config_.gradient_accumulation_steps;
  state_.processes = job_->size();
  if (job_->is_writer() && !options_.restart) {
    clean_checkpoints(output_dir, /*all=*/false);
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

// Makes the folder this run's own, once everything is loaded that could be refused.
void Trainer::begin_folder() {
  RunStart start{.config = config_,
                 .effective_config = effective_config_,
                 .model = trained_.folder,
                 .datasets = {data_.eval_dataset.get()},
                 .config_file = options_.config_file,
                 .restart = options_.restart,
                 .has_plan = planned_peak_mb(config_.output_dir, effective_config_) > 0};
  for (const auto& dataset : data_.datasets) start.datasets.push_back(dataset.get());
  if (state_.step > 0) start.checkpoint = checkpoint_path(config_.output_dir, state_.step);
  folder_->begin(start);
  if (plan_) save_plan(*plan_, config_.output_dir, effective_config_);
}

void Trainer::load_start() {
  const fs::path output_dir = config_.output_dir;
  set_total_steps(state_, data_.plan->total_steps());
  if (folder_) begin_folder();
  if (job_->is_writer() && state_.step > 0) {
    load_weights_and_optimizer(
        checkpoint_path(output_dir, state_.step), *optimizer_,
        [&](const std::string& name) { return trained_.model->published_key(name); });
  }
  job_->broadcast(optimizer_->parameters());
  if (state_.step > 0) job_->broadcast(optimizer_->state());
  saved_step_ = state_.step;
  std::unique_ptr<TensorboardLog> tensorboard;
  if (job_->is_writer()) {
    if (config_.evaluation.reports_to("tensorboard")) {
      tensorboard = std::make_unique<TensorboardLog>(output_dir / "runs", state_.step);
    }
  }
  metrics_ =
      std::make_unique<MetricsLog>(job_->is_writer() ? output_dir / "metrics.jsonl" : fs::path(),
                                   state_.step, state_.evaluated_step, std::move(tensorboard));
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
// vision tower is not needed any more. What the adapter's files hold of it stays, so that saving
// never needs the base; pissa's base is another than the files'.
void Trainer::release_tower() {
  const bool is_adapter = config_.method == "lora" || config_.method == "dora";
  const bool is_files_base = trained_.lora.init_lora_weights != "pissa";
  const bool is_new_epoch = data_.plan->epoch_at(state_.step) >= 1;
  if (!is_adapter || !is_files_base || !is_new_epoch || !pictures_->has_cache() ||
      pictures_->is_released()) {
    return;
  }
  std::set<std::string> kept;
  for (const AdapterTensor& tensor : adapter_tensors(trained_.model->module(), trained_.lora)) {
    kept.insert(tensor.name);
  }
  pictures_->release_tower(*trained_.model, kept, [this] {
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
  if (!device_.is_cpu()) options.pinned_dtype = activation_dtype(*trained_.model);
  options.encode.lookup = pictures_.get();
  if (config_.packing) {
    options.packing = {.max_tokens = config_.max_tokens_per_batch,
                       .max_units = config_.max_tiles_per_batch,
                       .share_pictures = config_.share_pictures,
                       .switch_length = trained_.model->switch_length()};
  }
  return options;
}

TrainResult Trainer::run() {
  try {
    return train();
  } catch (const Interrupted&) {
    return stop();
  } catch (...) {
    save_learned();
    throw;
  }
}

TrainResult Trainer::train() {
  const std::int64_t total = data_.plan->total_steps();
  if (!evaluate_start()) return stop();
  const bool was_cut = state_.step > state_.evaluated_step && is_evaluated(state_.step);
  if (was_cut && !evaluate()) return stop();
  StepLoader loader(*data_.plan, data_.datasets, *trained_.processor, loader_options(),
                    state_.step);
  std::optional<Progress> progress;
  if (job_->is_writer()) progress.emplace("steps", total, state_.step);
  StepLog log(state_, *metrics_, config_.logging_steps, device_);
  begin_training(trained_);
  while (state_.step < total && !state_.has_stopped_early) {
    release_tower();
    StepData step;
    StepFigures figures;
    double labels = 0;
    if (!next_step(loader, step, figures, labels)) return stop();
    train_step(step, labels, figures);
    log.add(figures, state_.step == total);
    if (!end_step()) return stop();
    if (progress) progress->update(state_.step, concat("loss ", figures.loss));
  }
  return finish();
}

bool Trainer::next_step(StepLoader& loader, StepData& data, StepFigures& figures, double& labels) {
  const auto asked_at = std::chrono::steady_clock::now();
  std::exception_ptr failure;
  try {
    data = loader.next();
  } catch (...) {
    failure = std::current_exception();
  }
  const std::chrono::duration<double> wait = std::chrono::steady_clock::now() - asked_at;
  const auto sums = job_->sum(
      {static_cast<double>(data.label_count), static_cast<double>(data.token_count),
       static_cast<double>(data.slot_count), failure ? 1.0 : 0.0, stop_requested() ? 1.0 : 0.0});
  if (sums[3] > 0) job_->fail_together(failure);
  labels = sums[0];
  figures = {.learning_rate = schedule_.at(state_.step),
             .epoch = data_.plan->epoch_behind(state_.step + 1),
             .samples = data.sample_count,
             .tokens = static_cast<std::int64_t>(sums[1]),
             .slots = static_cast<std::int64_t>(sums[2]),
             .data_wait_s = wait.count()};
  return sums[4] == 0;
}

std::vector<data::Batch> Trainer::split(const data::Batch& batch, int halvings) const {
  return split_batch(batch, trained_.model->media_token_ids(), halvings);
}

at::Tensor Trainer::run_batches(const StepData& data, double labels) {
  const std::uint64_t seed = mix_seed(static_cast<std::uint64_t>(config_.seed), kDropoutStream,
                                      static_cast<std::uint64_t>(state_.step));
  auto number = static_cast<std::uint64_t>(job_->rank());  // of the batch, among all processes'
  if (trained_.narrow_adapters) trained_.narrow_adapters->refresh();
  at::Tensor total;  // stays on the device, so that no batch waits for the one before
  for (const data::Batch& batch : data.batches) {
    // Dropout draws from the default generators; seeding them by step and batch makes a resumed
    // run exact, and several processes draw what one would.
    at::manual_seed(mix_seed(seed, number));
    number += static_cast<std::uint64_t>(job_->size());
    const std::vector<data::Batch> pieces = split(batch, halvings_);
    for (const data::Batch& piece : pieces) {
      const bool is_last = &batch == &data.batches.back() && &piece == &pieces.back();
      const at::Tensor part = loss_sum(*trained_.model, piece, pictures_.get()) / labels;
      // A batch of text gives nothing to a run that trains only what pictures pass through.
      if (is_last) sums_->begin_last();
      if (part.requires_grad()) part.backward();
      const at::Tensor wide = part.detach().to(at::kDouble);
      total = total.defined() ? total + wide : wide;
    }
  }
  return total;
}

// The step's loss; where the device lacks memory, in halves of the batches from then on.
at::Tensor Trainer::run_fitting(const StepData& data, double labels) {
  std::string reason;
  try {
    return run_batches(data, labels);
  } catch (const c10::OutOfMemoryError& error) {
    reason = error.what_without_backtrace();
  }
  optimizer_->zero_grad();  // what a part of the batches gave
  sums_->restart();
  trained_.release();
  at::accelerator::emptyCache();
  if (!halve(data)) {
    throw Error({.what = "out of memory in a training step",
                 .where = concat("step ", state_.step + 1),
                 .got = reason.substr(0, reason.find('\n')),
                 .hint = concat("a batch can't be made smaller; gradient_checkpointing, method "
                                "qlora, fewer tiles or tokens a sample",
                                config_.packing ? " and max_tokens_per_batch" : "",
                                " take less: vlm plan says how much")});
  }
  return run_fitting(data, labels);
}

// Has batches cut in two once more; false where none of them can be.
bool Trainer::halve(const StepData& data) {
  const bool can_be = std::any_of(data.batches.begin(), data.batches.end(), [&](const auto& batch) {
    return split(batch, halvings_ + 1).size() > split(batch, halvings_).size();
  });
  if (!can_be) return false;
  ++halvings_;
  log_warning(concat("out of memory in step ", state_.step + 1,
                     ": from here on a batch is taken in ", 1 << halvings_,
                     " parts; rounding and dropout's draws differ, nothing else"));
  return true;
}

void Trainer::train_step(const StepData& data, double labels, StepFigures& figures) {
  const at::Tensor total = run_fitting(data, labels);
  sums_->finish();
  const auto [own_loss, norm] = read_together(total, norm_of_gradients(optimizer_->parameters()));
  figures.read_at = std::chrono::steady_clock::now();
  figures.loss = job_->sum({own_loss})[0];
  figures.grad_norm = norm;
  check_number(figures.loss, "loss");
  check_number(norm, "norm of the gradients");
  clip_gradients(optimizer_->parameters(), norm, config_.max_grad_norm);
  is_sound_ = false;
  optimizer_->step(schedule_.at(state_.step));
  ++state_.step;
  is_sound_ = true;
  optimizer_->zero_grad();
}

}  // namespace vlm::train

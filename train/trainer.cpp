#include "train/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "train/loss.h"
#include "train/parameters.h"
#include "train/step_loader.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"
#include "vlm/io/hub_pull.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

// Random streams of a run, told apart in mix_seed.
enum Stream : std::uint64_t { kOrderStream = 1, kAugmentStream, kDropoutStream, kWeightStream };

// The adapter to train: the one to go on from, or a new one.
LoraConfig choose_adapter(const TrainConfig& config) {
  if (!config.adapter) return config.lora();
  const LoraConfig lora = load_adapter_config(*config.adapter);
  if (lora.use_dora == (config.method == "dora")) return lora;
  throw Error({.what = "the adapter is of another method",
               .where = *config.adapter,
               .got = lora.use_dora ? "dora" : "lora",
               .wanted = config.method});
}

}  // namespace

Trainer::Trainer(TrainConfig config, const TrainOptions& options)
    : config_(std::move(config)), options_(options) {
  if (options_.runtime.seed) config_.seed = *options_.runtime.seed;
  effective_config_ = write_fields(config_.fields());
  const at::Device device = prepare_runtime(options_.runtime);
  load_model_and_adapter(device);
  choose_trainable();
  load_data();
  resume();
}

Trainer::~Trainer() = default;

void Trainer::load_model_and_adapter(at::Device device) {
  const auto seed = static_cast<std::uint64_t>(config_.seed);
  model_folder_ = find_or_pull_model(config_.model_name_or_path);
  at::Generator generator = at::detail::createCPUGenerator(mix_seed(seed, kWeightStream));
  if (config_.trains_adapter()) lora_ = choose_adapter(config_);
  if (config_.init_weights == "random") {
    model_ = make_model(model_folder_);
    initialize_weights(model_->module(), model_->initializer_range(), generator);
    model_->tie_weights();
    model_->module().to(device);
  } else {
    std::string dtype = options_.runtime.dtype;
    // Small updates vanish in bfloat16 weights: what is trained is float32 unless asked otherwise.
    if (config_.method == "full" && dtype == "auto") dtype = "float32";
    model_ = load_model(model_folder_, {.dtype = dtype,
                                        .device = device,
                                        .quantize_nf4 = config_.method == "qlora",
                                        .is_trained = [this](const std::string& module) {
                                          return lora_.saves_module(module);
                                        }});
  }
  if (config_.adapter) {
    load_adapter(model_->module(), *config_.adapter);
  } else if (config_.trains_adapter()) {
    attach_lora(model_->module(), lora_, generator);
  }
  processor_ = load_processor(model_folder_);
}

void Trainer::choose_trainable() {
  const TrainedParameters chosen = choose_parameters(*model_, config_, lora_);
  optimizer_ = make_optimizer(chosen.parameters, config_.optimizer(), chosen.rate_factors);
  model_->gradient_checkpointing = config_.gradient_checkpointing;
}

void Trainer::load_data() {
  const data::FolderOptions folder{.text_column = config_.text_column, .prompt = config_.prompt};
  const std::int64_t samples_per_step =
      config_.per_device_train_batch_size * config_.gradient_accumulation_steps;
  std::vector<StageSize> sizes;
  auto stages = config_.parse_stages();
  if (stages.empty()) stages.push_back({.train_files = config_.train_files});
  for (const Stage& stage : stages) {
    datasets_.push_back(data::load_datasets(stage.train_files, folder));
    const std::int64_t samples = datasets_.back()->size();
    std::int64_t steps = stage.steps > 0 ? stage.steps : config_.max_steps;
    if (steps < 0) {
      const std::int64_t per_epoch = (samples + samples_per_step - 1) / samples_per_step;
      steps = static_cast<std::int64_t>(
          std::ceil(config_.num_train_epochs * static_cast<double>(per_epoch)));
    }
    sizes.push_back({.samples = samples, .steps = steps});
  }
  if (!config_.eval_files.empty()) eval_dataset_ = data::load_datasets(config_.eval_files, folder);
  plan_ =
      std::make_unique<DataPlan>(sizes, samples_per_step, config_.shuffle,
                                 mix_seed(static_cast<std::uint64_t>(config_.seed), kOrderStream));
  schedule_ = config_.schedule(plan_->total_steps());
}

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
}

TrainResult Trainer::run() {
  const LoaderOptions loader_options{
      .batch_size = config_.per_device_train_batch_size,
      .max_length = config_.max_length,
      .augmentation = config_.augmentation,
      .video = config_.video,
      .seed = mix_seed(static_cast<std::uint64_t>(config_.seed), kAugmentStream)};
  StepLoader loader(*plan_, datasets_, *processor_, loader_options, state_.step);
  const CheckpointWriter writer{.output_dir = config_.output_dir,
                                .config = effective_config_,
                                .save_total_limit = config_.save_total_limit,
                                .save_weights = [this](const fs::path& folder) {
                                  save_safetensors(folder / "trained.safetensors",
                                                   optimizer_->parameters());
                                }};
  const std::int64_t total = plan_->total_steps();
  Progress progress("steps", total, state_.step);
  last_log_ = std::chrono::steady_clock::now();
  model_->module().train();
  while (state_.step < total) {
    if (stop_requested()) {
      writer.save(state_, *optimizer_);
      log_info(concat("stopped at step ", state_.step, "; the same command goes on from here"));
      return TrainResult::kInterrupted;
    }
    StepData step = loader.next();
    double grad_norm = 0;
    const double loss = train_step(step, grad_norm);
    ++state_.step;
    log_step(loss, grad_norm, step.sample_count);
    const bool is_last = state_.step == total;
    const bool eval_now = config_.eval_steps > 0 && state_.step % config_.eval_steps == 0;
    if (eval_dataset_ && (eval_now || is_last)) {
      metrics_->write({{"step", state_.step}, {"eval_loss", evaluate()}});
    }
    const bool save_now = config_.save_steps > 0 && state_.step % config_.save_steps == 0;
    if (save_now || (is_last && config_.save_steps > 0)) writer.save(state_, *optimizer_);
    progress.update(state_.step, concat("loss ", loss));
  }
  model_->module().eval();
  save_result(config_.output_dir);
  return TrainResult::kFinished;
}

double Trainer::train_step(StepData& data, double& grad_norm) {
  // Dropout draws from the default generators; seeding them by step makes a resumed run exact.
  at::manual_seed(mix_seed(static_cast<std::uint64_t>(config_.seed), kDropoutStream,
                           static_cast<std::uint64_t>(state_.step)));
  double loss = 0;
  for (const data::Batch& batch : data.batches) {
    const at::Tensor part = loss_sum(*model_, batch) / static_cast<double>(data.label_count);
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

double Trainer::evaluate() {
  const c10::NoGradGuard no_grad;
  model_->module().eval();
  double sum = 0;
  std::int64_t labels = 0;
  const std::int64_t batch_size = config_.per_device_eval_batch_size;
  for (std::int64_t begin = 0; begin < eval_dataset_->size(); begin += batch_size) {
    std::vector<data::Example> examples;
    for (std::int64_t i = begin; i < std::min(begin + batch_size, eval_dataset_->size()); ++i) {
      examples.push_back(data::encode_example(eval_dataset_->at(i), *processor_,
                                              {.max_length = config_.max_length,
                                               .video = config_.video}));
    }
    const data::Batch batch = data::collate(examples, 0);
    sum += loss_sum(*model_, batch).item<double>();
    labels += batch.label_count;
  }
  model_->module().train();
  return sum / static_cast<double>(labels);
}

void Trainer::log_step(double loss, double grad_norm, std::int64_t samples) {
  state_.loss_since_log += loss;
  ++state_.steps_since_log;
  samples_since_log_ += samples;
  if (state_.step % config_.logging_steps != 0 && state_.step != plan_->total_steps()) return;
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - last_log_).count();
  metrics_->write(
      {{"step", state_.step},
       {"epoch", plan_->epoch_at(state_.step - 1)},
       {"loss", state_.loss_since_log / static_cast<double>(state_.steps_since_log)},
       {"grad_norm", grad_norm},
       {"learning_rate", schedule_.at(state_.step - 1)},
       {"samples_per_second", static_cast<double>(samples_since_log_) / std::max(seconds, 1e-9)},
       {"peak_rss_mb", peak_rss_mb()}});
  state_.loss_since_log = 0;
  state_.steps_since_log = 0;
  samples_since_log_ = 0;
  last_log_ = now;
}

void Trainer::save_result(const fs::path& folder) const {
  if (config_.trains_adapter()) {
    save_adapter(model_->module(), lora_, folder, config_.model_name_or_path);
  } else {
    save_model(*model_, model_folder_, folder);
  }
}

}  // namespace vlm::train

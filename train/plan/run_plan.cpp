#include "train/plan/run_plan.h"

#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/sample_size.h"
#include "train/batches/picture_store.h"
#include "train/batches/step_loader.h"
#include "train/batches/training_data.h"
#include "train/jobs/distributed.h"
#include "train/model/loss.h"
#include "train/plan/batch_sizes.h"
#include "train/plan/memory_meter.h"
#include "train/plan/probe.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/run/progress.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/core/sha256.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/picture_cache.h"
#include "vlm/models/registry.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kMostSamples = 4096;  // of a stage that are measured
constexpr std::int64_t kMostSteps = 4096;    // of a stage whose batches are laid out

// The batches of a run, or of as many steps of it as are looked at.
struct Layout {
  BatchSize largest;                                     // each figure's own largest
  double slots = 0, tokens = 0, tiles = 0, batches = 0;  // a step of all processes, on average
  double most_tiles_a_step = 0;                          // of a process
  std::int64_t most_batches = 1;                         // of a step of a process

  // One process's part of a step.
  void add(const std::vector<BatchSize>& part) {
    double part_tiles = 0;
    for (const BatchSize& batch : part) {
      largest.slots = std::max(largest.slots, batch.slots);
      largest.labels = std::max(largest.labels, batch.labels);
      largest.tiles = std::max(largest.tiles, batch.tiles);
      slots += static_cast<double>(batch.slots);
      tokens += static_cast<double>(batch.tokens);
      part_tiles += static_cast<double>(batch.tiles);
    }
    tiles += part_tiles;
    batches += static_cast<double>(part.size());
    most_tiles_a_step = std::max(most_tiles_a_step, part_tiles);
    most_batches = std::max(most_batches, std::ssize(part));
  }
};

// Sizes of all samples of a stage; where there are too many, those between are taken to be like
// the one measured before them.
std::vector<data::SampleSize> measure_stage(const data::Dataset& dataset,
                                            const Processor& processor,
                                            const data::MeasureOptions& options) {
  const std::int64_t stride = (dataset.size() + kMostSamples - 1) / kMostSamples;
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < dataset.size(); i += stride) indices.push_back(i);
  const auto measured = data::measure_samples(dataset, processor, options, indices);
  std::vector<data::SampleSize> sizes;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    sizes.push_back(measured[static_cast<std::size_t>(i / stride)]);
  }
  return sizes;
}

Layout lay_out(const TrainingData& data, const Processor& processor, const TrainConfig& config,
               std::int64_t processes) {
  std::vector<std::vector<data::SampleSize>> sizes;
  for (const auto& dataset : data.datasets) {
    sizes.push_back(measure_stage(*dataset, processor, config.measure_options()));
  }
  Layout layout;
  const std::int64_t total = data.plan->total_steps();
  const std::int64_t stride = std::max<std::int64_t>((total + kMostSteps - 1) / kMostSteps, 1);
  double steps = 0;
  for (std::int64_t step = 0; step < total; step += stride, ++steps) {
    throw_if_stopped();
    const StepPlan plan = data.plan->at(step);
    const auto stage = static_cast<std::size_t>(plan.stage);
    for (std::int64_t rank = 0; rank < processes; ++rank) {
      std::vector<StepSample> samples;
      const std::int64_t group_size = config.per_device_train_batch_size;
      for (const std::int64_t i : share_of(plan.samples, group_size, rank, processes)) {
        const auto place = static_cast<std::size_t>(i);
        const bool has_group = place < data.groups[stage].size();
        samples.push_back(
            {.size = sizes[stage][place], .group = has_group ? data.groups[stage][place] : -1});
      }
      layout.add(batch_sizes(samples, config));
    }
  }
  for (double* sum : {&layout.slots, &layout.tokens, &layout.tiles, &layout.batches}) {
    *sum /= std::max(steps, 1.0);
  }
  return layout;
}

double bytes_of(const VisionLanguageModel& model) {
  std::size_t bytes = 0;
  const auto tied = model.tied_weights();
  for (const auto& item : model.module().named_parameters()) {
    if (!tied.count(item.key())) bytes += item.value().nbytes();
  }
  for (const at::Tensor& buffer : model.module().buffers()) bytes += buffer.nbytes();
  return static_cast<double>(bytes);
}

double bytes_of(const NamedTensors& tensors) {
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  return static_cast<double>(bytes);
}

// Tokens of the longer probe: a second or two of work at some 100 GFLOP/s.
std::int64_t choose_tokens(const VisionLanguageModel& model) {
  const std::int64_t tokens = 60'000'000'000 / std::max<std::int64_t>(count_parameters(model), 1);
  return std::clamp<std::int64_t>(tokens / 32 * 32, 64, 512);
}

class Planner {
 public:
  Planner(TrainConfig config, const PlanOptions& options)
      : config_(std::move(config)), options_(options) {
    if (options_.runtime.seed) config_.seed = *options_.runtime.seed;
    device_ = choose_local_device(prepare_runtime(options_.runtime), options_.runtime.device);
    const auto folder = find_model_folder(config_.model_name_or_path);
    const auto processor = load_processor(folder, config_.template_options());
    data_ = load_training_data(config_, *processor, options_.processes);
    layout_ = lay_out(data_, *processor, config_, options_.processes);
    trained_ = load_trained_model(config_, options_.runtime, device_);
    optimizer_ = make_optimizer(config_, trained_);
    if (layout_.largest.tiles > 0) {
      picture_ = trained_.processor->process_picture(blank(), /*is_whole=*/true).pixels;
    }
  }

  RunPlan plan() {
    const StepCost cost = run_probe();
    RunPlan plan;
    plan.device = device_.is_cpu() ? "cpu" : device_.str();
    plan.processes = options_.processes;
    plan.memory_gb = options_.memory_gb;
    fill_memory(cost, plan);
    fill_time(cost, plan);
    if (!plan.fits()) advise(cost, plan);
    return plan;
  }

 private:
  static Image blank() {
    constexpr std::int64_t kSide = 448;
    return {
        .height = kSide, .width = kSide, .pixels = std::vector<std::uint8_t>(kSide * kSide * 3)};
  }

  StepCost run_probe() {
    const std::int64_t tokens =
        options_.probe_tokens > 0 ? options_.probe_tokens : choose_tokens(*trained_.model);
    return probe(trained_, *optimizer_, {.tokens = tokens, .picture = picture_});
  }

  double batch_bytes(const StepCost& cost, double tokens) const {
    const double gradients = layout_.most_batches > 1 ? cost.gradient_bytes : 0;
    return gradients + cost.batch_bytes(tokens, static_cast<double>(layout_.largest.labels),
                                        static_cast<double>(layout_.largest.tiles));
  }

  // Steps read ahead, the one at work, and one that is being made.
  double ahead_bytes() const {
    if (picture_.empty()) return 0;
    const double unit =
        static_cast<double>(picture_.values.numel() / picture_.units()) *
        (device_.is_cpu() ? 4.0 : c10::elementSize(activation_dtype(*trained_.model)));
    const double step = layout_.most_tiles_a_step * unit;
    return step * (step > 256e6 ? 2 : 3);
  }

  void fill_memory(const StepCost& cost, RunPlan& plan) const {
    const double weights = bytes_of(*trained_.model);
    const double trainable = bytes_of(trained_.trained.parameters);
    const double copies =
        trained_.narrow_adapters ? static_cast<double>(trained_.narrow_adapters->nbytes()) : 0;
    const double adapters = config_.method == "full" ? 0 : trainable;
    const double state = bytes_of(optimizer_->state());
    const double batch = batch_bytes(cost, static_cast<double>(layout_.largest.slots));
    const double probed = cost.batch_bytes(cost.probe_tokens, static_cast<double>(cost.labels), 0);
    const double gradients = std::min(cost.gradient_bytes, batch);
    const double known = device_.is_cpu() ? (weights + state + probed) / 1e6 : 0;  // of the host
    plan.memory_mb = {{"weights", (weights - adapters) / 1e6},
                      {"adapters", (adapters + copies) / 1e6},
                      {"optimizer", state / 1e6},
                      {"gradients", gradients / 1e6},
                      {"activations", (batch - gradients) / 1e6}};
    RunPlan::Parts& host = device_.is_cpu() ? plan.memory_mb : plan.host_mb;
    host.emplace_back("pictures read ahead", ahead_bytes() / 1e6);
    host.emplace_back("program", std::max(cost.process_mb - known, 0.0));
    for (const auto& [name, megabytes] : plan.memory_mb) plan.peak_mb += megabytes;
    for (const auto& [name, megabytes] : plan.host_mb) plan.host_peak_mb += megabytes;
    plan.largest_tokens = layout_.largest.slots;
    plan.largest_tiles = layout_.largest.tiles;
  }

  void fill_time(const StepCost& cost, RunPlan& plan) const {
    const auto steps = static_cast<double>(data_.plan->total_steps());
    const double epochs = data_.plan->epoch_at(data_.plan->total_steps());
    const double steps_per_epoch = epochs > 0 ? steps / epochs : steps;
    const bool has_cache =
        config_.augmentation.is_off() && !trains_pictures(*trained_.model) &&
        open_feature_cache({config_.feature_cache, config_.feature_cache_gb}, *trained_.model);
    plan.steps = data_.plan->total_steps();
    for (const auto& dataset : data_.datasets) plan.samples += dataset->size();
    plan.tokens_per_epoch = layout_.tokens * steps_per_epoch;
    plan.tiles_per_epoch = layout_.tiles * steps_per_epoch;
    plan.padding = 1 - layout_.tokens / std::max(layout_.slots, 1.0);
    const auto share = 1.0 / static_cast<double>(options_.processes);  // that a process takes
    plan.later_step_s = std::max(cost.seconds.at_zero, 0.0) * layout_.batches * share +
                        cost.seconds.slope * layout_.slots * share + cost.optimizer_seconds;
    plan.first_step_s = plan.later_step_s + cost.tile_seconds * layout_.tiles * share;
    if (!has_cache) plan.later_step_s = plan.first_step_s;
    const double first = std::min(steps, steps_per_epoch);
    plan.hours = (first * plan.first_step_s + (steps - first) * plan.later_step_s) / 3600;
  }

  // Changes that make it fit, with the peak that each would have.
  void advise(const StepCost& cost, RunPlan& plan) {
    const double bound = plan.memory_gb * 1e9, peak = plan.peak_mb * 1e6;
    const auto slots = static_cast<double>(layout_.largest.slots);
    const double other_bytes = peak - batch_bytes(cost, slots);
    const auto add_advice = [&](const std::string& change, double bytes) {
      plan.advice.push_back(concat(change, ": peak ", static_cast<std::int64_t>(bytes / 1e6), " MB",
                                   bytes <= bound ? ", fits" : ", still too much"));
    };
    if (!config_.gradient_checkpointing) {
      trained_.model->gradient_checkpointing = true;
      const StepCost spared = run_probe();
      trained_.model->gradient_checkpointing = false;
      add_advice("--set gradient_checkpointing=true", other_bytes + batch_bytes(spared, slots));
    }
    const std::int64_t rows = config_.per_device_train_batch_size;
    if (!config_.packing && rows > 1) {
      const double slots_per_row = slots / static_cast<double>(rows);
      add_advice(concat("--set per_device_train_batch_size=1 --set gradient_accumulation_steps=",
                        rows * config_.gradient_accumulation_steps),
                 other_bytes + cost.gradient_bytes + batch_bytes(cost, slots_per_row));
    }
    if (config_.packing) {
      const double half = slots / 2;
      add_advice(concat("--set max_tokens_per_batch=", static_cast<std::int64_t>(half)),
                 other_bytes + batch_bytes(cost, half));
    }
    if (config_.method == "full") plan.advice.push_back("--set method=lora trains adapters only");
  }

  TrainConfig config_;
  PlanOptions options_;
  at::Device device_ = at::kCPU;
  TrainingData data_;
  Layout layout_;
  TrainedModel trained_;
  std::unique_ptr<Optimizer> optimizer_;
  Pixels picture_;  // one that the encoder is measured with; empty where there are none
};

// Of what the memory of a run follows from.
std::string digest_config(OrderedJson config) {
  for (const char* key : {"output_dir", "memory_gb", "seed", "gradient_checkpointing"}) {
    config.erase(key);
  }
  return sha256_hex(config.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
}

double rounded(double value, double step) {
  return std::round(value / step) * step;
}

}  // namespace

RunPlan make_plan(TrainConfig config, const PlanOptions& options) {
  return Planner(std::move(config), options).plan();
}

RunPlan make_fit(TrainConfig& config, const RuntimeOptions& runtime, std::int64_t processes) {
  const PlanOptions options{
      .runtime = runtime, .memory_gb = config.memory_gb, .processes = processes};
  RunPlan plan = make_plan(config, options);
  if (!plan.fits() && !config.gradient_checkpointing) {
    TrainConfig spared = config;
    spared.gradient_checkpointing = true;
    const RunPlan other = make_plan(spared, options);
    if (other.fits()) {
      config.gradient_checkpointing = true;
      plan = other;
      log_info("gradient_checkpointing is turned on: the run doesn't fit memory_gb without it");
    }
  }
  check_fits(plan);
  log_info(concat("planned peak memory: ", std::llround(plan.peak_mb), " MB"));
  return plan;
}

void check_fits(const RunPlan& plan) {
  if (plan.fits()) return;
  throw Error(
      {.what = concat("the run doesn't fit the ", plan.is_of_gpu() ? "GPU's " : "", "memory"),
       .where = "memory_gb",
       .got = concat("a peak of ", std::llround(plan.peak_mb), " MB"),
       .wanted = concat("at most ", std::llround(plan.memory_gb * 1000), " MB"),
       .hint = join(plan.advice, "; ")});
}

void save_plan(const RunPlan& plan, const std::string& output_dir, const OrderedJson& config) {
  make_folders(output_dir);
  OrderedJson json = plan.to_json();
  json["config"] = digest_config(config);
  save_text(std::filesystem::path(output_dir) / "plan.json", json.dump(2) + "\n");
}

double planned_peak_mb(const std::string& output_dir, const OrderedJson& config) {
  try {
    const Json plan = load_json(std::filesystem::path(output_dir) / "plan.json");
    const bool is_ours = plan.is_object() && plan.contains("config") &&
                         plan["config"] == digest_config(config) && plan.contains("peak_mb");
    return is_ours && plan["peak_mb"].is_number() ? plan["peak_mb"].get<double>() : 0;
  } catch (const Error&) {
    return 0;
  }
}

OrderedJson RunPlan::to_json() const {
  OrderedJson json;
  const auto add = [&](const std::string& prefix, const Parts& parts, double sum) {
    OrderedJson list;
    for (const auto& [name, megabytes] : parts) list[name] = rounded(megabytes, 0.1);
    json[prefix + "peak_mb"] = rounded(sum, 0.1);
    json[prefix + "memory_mb"] = list;
  };
  json["device"] = device;
  json["processes"] = processes;
  add("", memory_mb, peak_mb);
  if (is_of_gpu()) add("host_", host_mb, host_peak_mb);
  json["fits"] = fits();
  json["samples"] = samples;
  json["steps"] = steps;
  json["tokens_per_epoch"] = std::llround(tokens_per_epoch);
  json["tiles_per_epoch"] = std::llround(tiles_per_epoch);
  json["padding"] = rounded(padding, 1e-4);
  json["largest_batch_tokens"] = largest_tokens;
  json["largest_batch_tiles"] = largest_tiles;
  json["step_s_first_epoch"] = rounded(first_step_s, 1e-4);
  json["step_s_later"] = rounded(later_step_s, 1e-4);
  json["hours"] = rounded(hours, 1e-4);
  json["advice"] = advice;
  return json;
}

std::string RunPlan::to_text() const {
  PlainStream out;
  out << std::fixed << std::setprecision(0);
  const auto line = [&](const std::string& name, double megabytes) {
    out << "\n  " << std::left << std::setw(22) << name << std::right << std::setw(8) << megabytes;
  };
  const auto list = [&](const std::string& title, const Parts& parts, double sum) {
    out << title << (processes > 1 ? concat(" of each of ", processes, " processes") : "")
        << ", MB";
    for (const auto& [name, megabytes] : parts) line(name, megabytes);
    line("peak", sum);
  };
  list(is_of_gpu() ? concat("memory of the GPU (", device, ")") : "memory", memory_mb, peak_mb);
  if (memory_gb > 0) out << (fits() ? "  fits " : "  more than ") << memory_gb * 1000;
  if (is_of_gpu()) list("\nmemory of the host", host_mb, host_peak_mb);
  out << "\nlargest batch: " << largest_tokens << " tokens, " << largest_tiles << " tiles\n"
      << samples << " samples, " << steps << " steps; an epoch is " << tokens_per_epoch
      << " tokens and " << tiles_per_epoch << " tiles; padding " << std::setprecision(1)
      << padding * 100 << " %\n"
      << std::setprecision(2) << first_step_s << " s a step in the first epoch, " << later_step_s
      << " s later; " << format_duration(hours * 3600) << " in all\n";
  for (const std::string& line : advice) out << "change: " << line << "\n";
  return out.str();
}

}  // namespace vlm::train

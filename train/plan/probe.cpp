#include "train/plan/probe.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <chrono>

#include "train/batches/picture_store.h"
#include "train/model/loss.h"
#include "train/plan/memory_meter.h"
#include "vlm/core/run/stop_signal.h"

namespace vlm::train {
namespace {

using Clock = std::chrono::steady_clock;

// Seconds until all is done that a device was asked for.
double since(Clock::time_point start, at::Device device) {
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A row of text with the labels at its end. Where pictures are trained it begins with one of them,
// so that gradients pass through the whole decoder.
data::Batch make_batch(const VisionLanguageModel& model, std::int64_t tokens, std::int64_t labels,
                       const at::Tensor& features) {
  data::Batch batch;
  const std::int64_t id = model.filler_id();
  batch.inputs.input_ids = at::full({1, tokens}, id, at::kLong);
  if (features.requires_grad()) {
    batch.inputs.input_ids.narrow(1, 0, features.size(0)).fill_(model.media_token_ids().at(0));
  }
  batch.labels = at::full({1, tokens}, data::kIgnoredLabel, at::kLong);
  batch.labels.narrow(1, tokens - labels, labels).fill_(id);
  batch.segments = {{.begin = 0, .length = tokens}};
  return batch;
}

struct Pass {
  double forward = 0, kept = 0, backward = 0, gradients = 0;  // bytes, as StepCost has them
  double seconds = 0;
};

Pass run_pass(const TrainedModel& trained, const Optimizer& optimizer, const data::Batch& batch,
              const at::Tensor& features) {
  throw_if_stopped();
  trained.release();  // what is made again is counted
  for (const auto& [name, parameter] : optimizer.parameters()) {
    parameter.mutable_grad() = at::Tensor();
  }
  const auto start = Clock::now();
  MemoryMeter meter(trained.model->device().type());
  Pass pass;
  {
    const at::Tensor loss =
        loss_sum(*trained.model, batch, features.requires_grad() ? features : at::Tensor());
    pass.forward = static_cast<double>(meter.peak_bytes());
    pass.kept = static_cast<double>(meter.held_bytes());
    meter.restart_peak();
    if (loss.requires_grad()) loss.backward();  // text may meet nothing that is trained
  }
  pass.seconds = since(start, trained.model->device());
  for (const auto& [name, parameter] : optimizer.parameters()) {
    if (parameter.grad().defined())
      pass.gradients += static_cast<double>(parameter.grad().nbytes());
  }
  const auto peak = static_cast<double>(meter.peak_bytes());
  pass.backward = std::max(peak - std::max(pass.kept, pass.gradients), 0.0);
  return pass;
}

at::ScalarType logits_dtype(VisionLanguageModel& model) {
  const c10::NoGradGuard no_grad;
  const at::Tensor id = at::full({1, 1}, model.filler_id(), at::kLong);
  return model.logits(model.embed(id, at::Tensor())[0]).scalar_type();
}

Line line_through(double x0, double y0, double x1, double y1) {
  const double slope = std::max((y1 - y0) / (x1 - x0), 0.0);
  return {.at_zero = y1 - slope * x1, .slope = slope};
}

// Returns the features of a picture, which require gradients where pictures are trained.
at::Tensor probe_picture(const TrainedModel& trained, const Pixels& picture, StepCost& cost) {
  VisionLanguageModel& model = *trained.model;
  const auto units = static_cast<double>(picture.units());
  cost.keeps_tiles = trains_pictures(model);
  const c10::AutoGradMode recording(cost.keeps_tiles);
  at::Tensor found;
  for (int turn = 0; turn < 2; ++turn) {  // the first is cold
    throw_if_stopped();
    trained.release();
    const auto start = Clock::now();
    const MemoryMeter meter(model.device().type());
    const at::Tensor features = model.encode(picture);
    cost.tile_bytes = static_cast<double>(meter.peak_bytes()) / (cost.keeps_tiles ? units : 1);
    if (cost.keeps_tiles) features.sum().backward();
    cost.tile_seconds = since(start, model.device()) / units;
    found = features.detach();
  }
  return found.requires_grad_(cost.keeps_tiles);
}

}  // namespace

double StepCost::batch_bytes(double tokens, double batch_labels, double tiles) const {
  const double more =
      std::clamp(batch_labels, 0.0, static_cast<double>(kHeadChunk)) - static_cast<double>(labels);
  const double forward = std::max(forward_bytes.at(tokens) + more * bytes_per_label, 0.0);
  // As backward goes on, what is kept becomes less and gradients more: the peak is at one end.
  const double backward =
      std::max(kept_bytes.at(tokens), gradient_bytes) + std::max(backward_bytes.at(tokens), 0.0);
  const double text = std::max(forward, backward);
  return keeps_tiles ? text + tiles * tile_bytes : std::max(text, tiles > 0 ? tile_bytes : 0.0);
}

StepCost probe(TrainedModel& trained, Optimizer& optimizer, const ProbeOptions& options) {
  VisionLanguageModel& model = *trained.model;
  StepCost cost;
  model.module().train();
  if (trained.narrow_adapters) trained.narrow_adapters->refresh();
  const std::int64_t most = options.tokens, fewer = options.tokens / 2;
  cost.labels = fewer / 2;
  at::Tensor features;
  if (!options.picture.empty()) {
    features = probe_picture(trained, options.picture, cost);
    features = features.narrow(0, 0, std::min(features.size(0), fewer - cost.labels));
  }
  cost.probe_tokens = static_cast<double>(most);
  cost.bytes_per_label =
      static_cast<double>(head_bytes_per_label(model.vocab_size(), logits_dtype(model)));
  run_pass(trained, optimizer, make_batch(model, fewer, cost.labels, features), features);  // cold
  const Pass half =
      run_pass(trained, optimizer, make_batch(model, fewer, cost.labels, features), features);
  reset_peak_rss();
  const Pass whole =
      run_pass(trained, optimizer, make_batch(model, most, cost.labels, features), features);
  cost.process_mb = peak_rss_since_reset_mb();
  const auto x0 = static_cast<double>(fewer), x1 = static_cast<double>(most);
  cost.forward_bytes = line_through(x0, half.forward, x1, whole.forward);
  cost.kept_bytes = line_through(x0, half.kept, x1, whole.kept);
  cost.backward_bytes = line_through(x0, half.backward, x1, whole.backward);
  cost.seconds = line_through(x0, half.seconds, x1, whole.seconds);
  cost.gradient_bytes = whole.gradients;
  const auto start = Clock::now();
  optimizer.step(0);
  cost.optimizer_seconds = since(start, model.device());
  optimizer.zero_grad();
  return cost;
}

}  // namespace vlm::train

// Estimates what a run will need before it starts: memory by part, tokens, steps and time.
//
//   TrainConfig ─► make_plan: sizes of the samples, a probe of a few seconds ─► RunPlan ─► text,
//   JSON, output_dir/plan.json
//
// Memory is the measured peak of the probe's process, extrapolated linearly from the probe's
// batches to the largest batch of the run, plus the pictures that are read ahead. On a GPU its
// tensors and the host's memory are two budgets. Of several processes each has these for itself.
// Nothing is trained, and only plan.json is written.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "train/config/train_config.h"
#include "vlm/core/json.h"
#include "vlm/nn/runtime.h"

namespace vlm::train {

struct PlanOptions {
  RuntimeOptions runtime;
  double memory_gb = 0;           // 10⁹ bytes that the run may take; 0: no bound
  std::int64_t probe_tokens = 0;  // of the longer probe; 0: by the model's size
  std::int64_t processes = 1;     // of the job
};

struct RunPlan {
  using Parts = std::vector<std::pair<std::string, double>>;  // MB

  std::string device = "cpu";  // whose memory memory_mb, peak_mb and memory_gb are of
  std::int64_t processes = 1;  // each of which takes the memory below
  Parts memory_mb;
  double peak_mb = 0;    // their sum
  double memory_gb = 0;  // the bound; 0: none
  std::int64_t samples = 0, steps = 0;
  double tokens_per_epoch = 0, tiles_per_epoch = 0;
  double padding = 0;                                  // share of all token places, 0 to 1
  std::int64_t largest_tokens = 0, largest_tiles = 0;  // of a batch
  double first_step_s = 0, later_step_s = 0;  // means: first epoch, and with cached pictures
  double hours = 0;
  std::vector<std::string> advice;  // what to change when it doesn't fit

  // Of the host, beside a GPU; empty where the device is the host.
  Parts host_mb = {};
  double host_peak_mb = 0;

  bool is_of_gpu() const { return device != "cpu"; }
  bool fits() const { return memory_gb <= 0 || peak_mb <= memory_gb * 1000; }
  OrderedJson to_json() const;
  std::string to_text() const;
};

RunPlan make_plan(TrainConfig config, const PlanOptions& options);

// Plans a run within config.memory_gb. Turns gradient_checkpointing on if the run fits only with
// it; throws Error, with what to change, if it doesn't fit at all.
RunPlan make_fit(TrainConfig& config, const RuntimeOptions& runtime, std::int64_t processes = 1);

// Throws Error, with what to change, for a plan that doesn't fit.
void check_fits(const RunPlan& plan);

// Writes plan.json, with a digest of the config (effective_config.h) that it belongs to.
void save_plan(const RunPlan& plan, const std::string& output_dir, const OrderedJson& config);
// The peak in MB from plan.json in this folder; 0 when there is none or it belongs to another
// config.
double planned_peak_mb(const std::string& output_dir, const OrderedJson& config);

}  // namespace vlm::train

#include "train/step_log.h"

#include <ATen/DeviceAccelerator.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/nn/runtime.h"

namespace vlm::train {

double peak_device_mb(at::Device device) {
  constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats = at::accelerator::getDeviceStats(device.index());
  return static_cast<double>(stats.allocated_bytes[kAll].peak) / 1e6;
}

void StepLog::add(const StepFigures& figures, bool is_last) {
  // What a GPU was asked to do since is done in the next step's time.
  const auto now = device_.is_cpu() ? std::chrono::steady_clock::now() : figures.read_at;
  const double passed = std::chrono::duration<double>(now - last_step_).count();
  last_step_ = now;
  state_.seconds += passed;
  state_.seconds_since_log += passed;
  state_.loss_since_log += figures.loss;
  ++state_.steps_since_log;
  state_.samples_since_log += figures.samples;
  state_.tokens_since_log += figures.tokens;
  state_.slots_since_log += figures.slots;
  state_.data_wait_since_log += figures.data_wait_s;
  if (state_.step % logging_steps_ != 0 && !is_last) return;
  const double seconds = std::max(state_.seconds_since_log, 1e-9);
  const auto tokens = static_cast<double>(state_.tokens_since_log);
  const auto slots = static_cast<double>(std::max<std::int64_t>(state_.slots_since_log, 1));
  OrderedJson row = {
      {"step", state_.step},
      {"epoch", figures.epoch},
      {"loss", state_.loss_since_log / static_cast<double>(state_.steps_since_log)},
      {"grad_norm", figures.grad_norm},
      {"learning_rate", figures.learning_rate},
      {"samples_per_second", static_cast<double>(state_.samples_since_log) / seconds},
      {"tokens_per_second", tokens / seconds},
      {"padding", 1 - tokens / slots},
      {"data_wait_s", state_.data_wait_since_log},
      {"seconds", state_.seconds},
      {"peak_rss_mb", peak_rss_mb()}};
  if (!device_.is_cpu()) row["peak_device_mb"] = peak_device_mb(device_);
  metrics_.write(row);
  state_.loss_since_log = state_.data_wait_since_log = state_.seconds_since_log = 0;
  state_.steps_since_log = state_.samples_since_log = 0;
  state_.tokens_since_log = state_.slots_since_log = 0;
}

}  // namespace vlm::train

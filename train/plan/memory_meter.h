// Measures the peak memory of a piece of code: of its tensors, and of the process.
//
//   MemoryMeter meter(device); …; meter.peak_bytes() of that device's tensors allocated since
//   reset_peak_rss(); …; peak_rss_since_reset_mb()
//
// LibTorch's allocators report to an object that is registered for the thread; backward is counted,
// on a CPU in the calling thread and on a GPU in a thread of that device, which may free what it
// used a moment after backward has returned. Use one meter at a time, and not together with
// LibTorch's profiler.
#pragma once

#include <c10/core/DeviceType.h>

#include <cstdint>
#include <memory>

namespace c10 {
class DebugInfoGuard;
}

namespace vlm::train {

class MemoryMeter {
 public:
  explicit MemoryMeter(c10::DeviceType device = c10::DeviceType::CPU);
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  // Bytes allocated since the meter began that are still in use, and the peak of this number.
  std::int64_t held_bytes() const;
  std::int64_t peak_bytes() const;
  // The peak begins again at what is held now.
  void restart_peak();

 private:
  class Reporter;
  std::shared_ptr<Reporter> reporter_;
  std::unique_ptr<c10::DebugInfoGuard> guard_;
};

// Resident memory of this process in MB (10⁶ bytes): now, and its peak since it was last reset. If
// the kernel can't reset it, the peak is that of the whole life of the process.
double rss_mb();
void reset_peak_rss();
double peak_rss_since_reset_mb();

}  // namespace vlm::train

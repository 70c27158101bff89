// What a stretch of code takes: tensors' memory at its peak, and the process's.
//
//   MemoryMeter meter; …; meter.peak_bytes() of tensors allocated since, by any device
//   reset_peak_rss(); …; peak_rss_since_reset_mb()
//
// LibTorch's allocators report to whoever is registered for the thread; backward on a CPU runs in
// the thread that asks for it. One meter at a time, and none beside LibTorch's profiler.
#pragma once

#include <cstdint>
#include <memory>

namespace c10 {
class DebugInfoGuard;
}

namespace vlm::train {

class MemoryMeter {
 public:
  MemoryMeter();
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  // Bytes that are held now, and the most so far, of what was allocated since the meter began.
  std::int64_t held_bytes() const;
  std::int64_t peak_bytes() const;

 private:
  class Reporter;
  std::shared_ptr<Reporter> reporter_;
  std::unique_ptr<c10::DebugInfoGuard> guard_;
};

// Resident memory of this process in MB (10⁶ bytes): now, and its peak since it was last reset.
// Where the kernel doesn't let it be reset, the peak is the process's.
double rss_mb();
void reset_peak_rss();
double peak_rss_since_reset_mb();

}  // namespace vlm::train

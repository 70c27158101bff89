#include "train/plan/memory_meter.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>

namespace vlm::train {

class MemoryMeter::Reporter : public c10::MemoryReportingInfoBase {
 public:
  explicit Reporter(c10::DeviceType device) : device_(device) {}
  void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t,
                         c10::Device device) override {
    if (device.type() != device_) return;
    const std::int64_t now = held += size;
    std::int64_t most = peak;
    while (now > most && !peak.compare_exchange_weak(most, now)) {
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::atomic<std::int64_t> held{0}, peak{0};

 private:
  c10::DeviceType device_;
};

MemoryMeter::MemoryMeter(c10::DeviceType device)
    : reporter_(std::make_shared<Reporter>(device)),
      guard_(std::make_unique<c10::DebugInfoGuard>(c10::DebugInfoKind::PROFILER_STATE, reporter_)) {
}

MemoryMeter::~MemoryMeter() = default;

std::int64_t MemoryMeter::held_bytes() const {
  return reporter_->held;
}

std::int64_t MemoryMeter::peak_bytes() const {
  return reporter_->peak;
}

void MemoryMeter::restart_peak() {
  reporter_->peak = reporter_->held.load();
}

namespace {

// A line "Key:  123 kB" of /proc/self/status, in MB; 0 when there is none.
double status_mb(const std::string& key) {
  std::ifstream status("/proc/self/status");
  status.imbue(std::locale::classic());
  for (std::string word; status >> word;) {
    double kilobytes = 0;
    if (word == key + ":" && status >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  return 0;
}

}  // namespace

double rss_mb() {
  return status_mb("VmRSS");
}

void reset_peak_rss() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

double peak_rss_since_reset_mb() {
  return status_mb("VmHWM");
}

}  // namespace vlm::train

#include "tests/support/simulated_cuda/counts.h"

#include <execinfo.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <utility>
#include <vector>

#include "tests/support/simulated_cuda/simulated_cuda.h"

namespace simulated_cuda {
namespace {

constexpr int kMostFrames = 64;

struct Counters {
  std::mutex mutex;
  DeviceCounts counts;
  bool is_recording = false;
  std::map<std::vector<void*>, std::int64_t> places;
};

// Never destroyed: threads may count while the program ends.
Counters& counters() {
  static auto* const all = new Counters;
  return *all;
}

std::vector<void*> own_place() {
  std::vector<void*> frames(kMostFrames);
  frames.resize(static_cast<std::size_t>(::backtrace(frames.data(), kMostFrames)));
  return frames;
}

// Calls of this program, without LibTorch's and this device's own.
std::string place_text(const std::vector<void*>& frames) {
  char** const names = ::backtrace_symbols(frames.data(), static_cast<int>(frames.size()));
  if (names == nullptr) return "";
  std::string text;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const std::string name = names[i];
    const std::size_t open = name.find('('), close = name.find(')');
    if (name.find(".so") == std::string::npos) text += " " + name.substr(open, close + 1 - open);
  }
  std::free(names);
  return text;
}

}  // namespace

void count_operator(const std::string& name, std::int64_t launches) {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  all.counts.operators += launches;
  all.counts.by_name[name] += launches;
}

void count_upload(std::int64_t bytes) {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  ++all.counts.uploads;
  all.counts.bytes_up += bytes;
}

void count_download(std::int64_t bytes) {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  ++all.counts.downloads;
  all.counts.bytes_down += bytes;
}

void count_pageable() {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  ++all.counts.pageable;
}

void count_wait() {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  ++all.counts.waits;
  if (all.is_recording) ++all.places[own_place()];
}

DeviceCounts counts() {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  return all.counts;
}

DeviceCounts operator-(const DeviceCounts& later, const DeviceCounts& earlier) {
  DeviceCounts difference = later;
  difference.operators -= earlier.operators;
  difference.waits -= earlier.waits;
  difference.uploads -= earlier.uploads;
  difference.downloads -= earlier.downloads;
  difference.bytes_up -= earlier.bytes_up;
  difference.bytes_down -= earlier.bytes_down;
  difference.pageable -= earlier.pageable;
  for (const auto& [name, count] : earlier.by_name) {
    if ((difference.by_name[name] -= count) == 0) difference.by_name.erase(name);
  }
  return difference;
}

void record_waits(bool is_on) {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  all.is_recording = is_on;
  if (is_on) all.places.clear();
}

std::string waiting_places() {
  Counters& all = counters();
  const std::lock_guard lock(all.mutex);
  std::map<std::string, std::int64_t> texts;
  for (const auto& [frames, count] : all.places) texts[place_text(frames)] += count;
  std::vector<std::pair<std::string, std::int64_t>> sorted(texts.begin(), texts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::ostringstream text;
  for (const auto& [place, count] : sorted) text << count << place << "\n";
  return text.str();
}

}  // namespace simulated_cuda

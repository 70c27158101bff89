// Progress of long work: a bar with rate and time left on a terminal, plain lines otherwise.
//
// Written where messages of level info go (vlm/core/log.h). Not thread-safe: one thread reports.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace vlm {

class Progress {
 public:
  // `unit` is what is counted ("pictures", "steps"); `done` of the `total` items were finished
  // before this run.
  Progress(std::string unit, std::int64_t total, std::int64_t done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` is shown behind the numbers ("loss 1.23").
  void update(std::int64_t done, const std::string& note = "");

 private:
  void print(const std::string& note);

  using Clock = std::chrono::steady_clock;
  std::string unit_;
  std::int64_t total_, first_, done_;
  bool is_terminal_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point printed_;
};

// "1:02:03", "2:03", "0:05"
std::string format_duration(double seconds);

}  // namespace vlm

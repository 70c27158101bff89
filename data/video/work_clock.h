// Measures the time spent on a file against its limit.
//
// It runs while a call works and pauses while a callback has the frame, because a slow caller is no
// reason to give up on a file.
#pragma once

#include <chrono>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {

class WorkClock {
 public:
  WorkClock(double max_seconds, std::string where)
      : max_s_(max_seconds), where_(std::move(where)) {}

  // The clock runs while one of these lives.
  class Running {
   public:
    explicit Running(WorkClock& clock) : clock_(clock) { clock_.start(); }
    ~Running() { clock_.stop(); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    WorkClock& clock_;
  };

  void start() { started_ = Clock::now(); }
  void stop() { spent_ += since_start(); }

  bool is_over() const { return (spent_ + since_start()).count() > max_s_; }

  // Throws Error when the time is used up.
  void check() const {
    if (!is_over()) return;
    throw Error({.what = "reading the video takes too long",
                 .where = where_,
                 .wanted = concat("at most ", max_s_, " s")});
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  Seconds since_start() const { return Clock::now() - started_; }

  double max_s_;
  std::string where_;
  Seconds spent_{};
  Clock::time_point started_ = Clock::now();
};

}  // namespace vlm::data

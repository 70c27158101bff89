// Work done ahead in threads and taken in order.
//
//   open() ─► Job ─► (threads: make(job, output)) ─► values ─► next(), in the order of the jobs
//
// A job makes one value, or several one after the other. An exception of open() or make() is thrown
// by next() after the values made before it, and again by every later call: none ends the process
// or is lost, and next() never waits for a value that can't come. The destructor may run at any
// moment; it tells the threads to stop and waits for the calls that they are in.
//
// Only one thread may call next(). In a worker LibTorch's operators run on one thread (parallel.h),
// because the workers already share the machine's cores.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace vlm {

struct WorkerSettings {
  std::string name;  // of the threads, at most 15 characters
  std::int64_t workers = 1;
  std::int64_t ahead = 2;   // most jobs that are open and whose values aren't all taken
  std::int64_t values = 1;  // most values of one job that wait to be taken
};

// Starts the threads, fewer when the system gives no more of them; throws Error when it gives none.
void start_workers(std::vector<std::jthread>& threads, const WorkerSettings& settings,
                   const std::function<void(std::stop_token)>& work);

template <typename Job, typename Value>
class OrderedWorkers {
 public:
  class Output;

  struct Work {
    std::function<std::optional<Job>()> open;  // in order, one call at a time; nothing at the end
    std::function<void(Job, Output&)> make;    // of several jobs at once
    // In place of `ahead`: whether one more job may be opened while `held` are open and not taken.
    // Throws nothing. Called when a job is opened, made or taken, and after wake().
    std::function<bool(std::int64_t held)> may_open = {};
  };

  OrderedWorkers(WorkerSettings settings, Work work)
      : settings_(std::move(settings)), work_(std::move(work)) {
    settings_.workers = std::max<std::int64_t>(settings_.workers, 1);
    if (!work_.may_open) {
      const std::int64_t ahead = std::max<std::int64_t>(settings_.ahead, 1);
      work_.may_open = [ahead](std::int64_t held) { return held < ahead; };
    }
    start_workers(threads_, settings_, [this](std::stop_token stop) { run(std::move(stop)); });
  }

  ~OrderedWorkers() {
    for (std::jthread& thread : threads_) thread.request_stop();
  }
  OrderedWorkers(const OrderedWorkers&) = delete;
  OrderedWorkers& operator=(const OrderedWorkers&) = delete;

  // The next value, or nothing after the last one. Throws the exception of open() or make() when
  // its turn comes.
  std::optional<Value> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return can_answer(); });
    if (!slots_.empty() && !slots_.front().values.empty()) {
      std::optional<Value> value(std::move(slots_.front().values.front()));
      slots_.front().values.pop_front();
      drop_finished();
      changed_.notify_all();
      return value;
    }
    const std::exception_ptr failure = slots_.empty() ? failure_ : slots_.front().failure;
    if (failure) std::rethrow_exception(failure);
    return std::nullopt;
  }

  // Whether next() would return at once; waits up to `timeout` for that.
  bool is_ready(std::chrono::milliseconds timeout = {}) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [this] { return can_answer(); });
  }

  // Makes the threads call may_open again.
  void wake() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

 private:
  struct Slot {
    std::deque<Value> values = {};
    std::exception_ptr failure = {};
    bool is_made = false;
  };

  bool can_answer() const {
    if (slots_.empty()) return is_ended_ && !is_opening_;
    return !slots_.front().values.empty() || slots_.front().failure;
  }

  bool may_open() const { return !is_opening_ && work_.may_open(std::ssize(slots_)); }

  void drop_finished() {
    while (!slots_.empty() && slots_.front().is_made && slots_.front().values.empty() &&
           !slots_.front().failure) {
      slots_.pop_front();
    }
  }

  // The lock is open while `open` runs, so that values can be taken meanwhile.
  std::optional<std::pair<Slot*, Job>> open_next(std::unique_lock<std::mutex>& lock) {
    is_opening_ = true;
    lock.unlock();
    std::optional<std::pair<Slot*, Job>> opened;
    std::exception_ptr failure;
    try {
      if (std::optional<Job> job = work_.open()) opened.emplace(nullptr, std::move(*job));
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    is_opening_ = false;
    try {
      if (opened) opened->first = &slots_.emplace_back();
    } catch (...) {
      failure = std::current_exception();
      opened.reset();
    }
    if (!opened) {
      is_ended_ = true;
      failure_ = failure;
    }
    changed_.notify_all();
    return opened;
  }

  void run(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, stop, [this] { return is_ended_ || may_open(); });
      if (stop.stop_requested() || is_ended_) return;
      auto opened = open_next(lock);
      if (!opened) return;
      lock.unlock();
      Slot& slot = *opened->first;  // slots stay where they are
      std::exception_ptr failure;
      try {
        Output output(*this, slot, stop);
        work_.make(std::move(opened->second), output);
        opened.reset();
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      slot.failure = failure;
      slot.is_made = true;
      if (failure) is_ended_ = true;  // nothing behind it will be taken
      drop_finished();
      changed_.notify_all();
    }
  }

  bool put(Slot& slot, Value value, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop, [&] { return std::ssize(slot.values) < settings_.values; });
    if (stop.stop_requested()) return false;
    slot.values.push_back(std::move(value));
    changed_.notify_all();
    return true;
  }

  WorkerSettings settings_;
  Work work_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Slot> slots_;      // of the jobs that are opened and not taken
  std::exception_ptr failure_;  // of opening
  bool is_opening_ = false, is_ended_ = false;
  std::vector<std::jthread> threads_;  // last: gone before what they work with
};

// Where make() puts a job's values.
template <typename Job, typename Value>
class OrderedWorkers<Job, Value>::Output {
 public:
  // Waits until there is room. False: no more values are wanted, and the job should return.
  bool put(Value value) { return workers_.put(slot_, std::move(value), stop_); }
  // False when the job may stop; for jobs that take long.
  bool is_wanted() const { return !stop_.stop_requested(); }

 private:
  friend OrderedWorkers;
  Output(OrderedWorkers& workers, Slot& slot, const std::stop_token& stop)
      : workers_(workers), slot_(slot), stop_(stop) {}

  OrderedWorkers& workers_;
  Slot& slot_;
  const std::stop_token& stop_;
};

}  // namespace vlm

// Threads that do what is posted, in the order in which it came.
//
// With one thread, what is posted happens one after the other: state that is touched by nothing
// else needs no lock.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace vlm::infer {

class WorkerPool {
 public:
  explicit WorkerPool(std::size_t threads);
  // Drops what has not begun.
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Any thread. Work catches its own exceptions; others are logged.
  void post(std::function<void()> work);
  // What was posted and has not begun.
  std::size_t waiting() const;
  // Returns when what was posted before is done.
  void finish();
  void stop();

 private:
  void run();

  mutable std::mutex mutex_;  // of all below but the threads
  std::condition_variable change_;
  std::deque<std::function<void()>> work_;
  std::size_t busy_ = 0;
  bool is_stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vlm::infer

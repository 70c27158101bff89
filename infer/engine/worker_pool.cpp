#include "infer/engine/worker_pool.h"

#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {

WorkerPool::WorkerPool(std::size_t threads) {
  for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

void WorkerPool::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (is_stopped_) return;
    work_.push_back(std::move(work));
  }
  change_.notify_all();
}

std::size_t WorkerPool::waiting() const {
  const std::lock_guard lock(mutex_);
  return work_.size();
}

void WorkerPool::finish() {
  std::unique_lock lock(mutex_);
  change_.wait(lock, [this] { return is_stopped_ || (work_.empty() && busy_ == 0); });
}

void WorkerPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  change_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  work_.clear();
}

void WorkerPool::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    change_.wait(lock, [this] { return is_stopped_ || !work_.empty(); });
    if (is_stopped_) return;
    auto work = std::move(work_.front());
    work_.pop_front();
    ++busy_;
    lock.unlock();
    try {
      work();
    } catch (const std::exception& error) {
      log_warning(concat("the server's work failed: ", error_text(error)));
    }
    work = nullptr;  // what it holds may take a while to go
    lock.lock();
    --busy_;
    change_.notify_all();
  }
}

}  // namespace vlm::infer

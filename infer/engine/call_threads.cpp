#include "infer/engine/call_threads.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "vlm/io/parallel.h"

namespace vlm::infer {
namespace {

constexpr int kThreads = 2;

}  // namespace

struct CallThreads::State : std::enable_shared_from_this<CallThreads::State> {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Task> tasks;
  std::int64_t free_places = 0;
  bool is_ending = false;

  Place take_place() {
    --free_places;
    return Place(this, [self = shared_from_this()](void*) {
      const std::lock_guard lock(self->mutex);
      ++self->free_places;
      self->changed.notify_all();
    });
  }
};

CallThreads::CallThreads(std::int64_t places) : state_(std::make_shared<State>()) {
  state_->free_places = places;
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { run(*state_); });
}

CallThreads::~CallThreads() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->is_ending = true;
    state_->changed.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void CallThreads::post(Task task) {
  const std::lock_guard lock(state_->mutex);
  state_->tasks.push_back(std::move(task));
  state_->changed.notify_all();
}

void CallThreads::run(State& state) {
  use_one_thread();  // as others decode beside
  std::unique_lock lock(state.mutex);
  for (;;) {
    state.changed.wait(
        lock, [&] { return state.is_ending || (!state.tasks.empty() && state.free_places > 0); });
    if (state.tasks.empty()) return;
    Task task = std::move(state.tasks.front());
    state.tasks.pop_front();
    Place place = state.is_ending ? nullptr : state.take_place();
    lock.unlock();
    task(std::move(place));
    task = nullptr;
    lock.lock();
  }
}

}  // namespace vlm::infer

// Who is to be called when a Cancellation of the library is requested.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "infer/vlm.h"

namespace vlm {

// Calls to make when it is requested, by a number.
struct Cancellation::State {
  std::mutex mutex;
  bool is_requested = false;
  std::uint64_t last = 0;
  std::map<std::uint64_t, std::function<void()>> calls;

  // `call` is made at once when it was requested before. → what to forget it by
  std::uint64_t add(std::function<void()> call) {
    const std::lock_guard lock(mutex);
    if (is_requested) call();
    calls.emplace(++last, std::move(call));
    return last;
  }
  void forget(std::uint64_t number) {
    const std::lock_guard lock(mutex);
    calls.erase(number);
  }
};

// While it lives, a cancellation makes the call.
class Cancellation::Watch {
 public:
  Watch(const std::optional<Cancellation>& cancellation, std::function<void()> call) {
    if (!cancellation) return;
    state_ = cancellation->state_;
    number_ = state_->add(std::move(call));
  }
  ~Watch() {
    if (state_) state_->forget(number_);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  std::shared_ptr<State> state_;
  std::uint64_t number_ = 0;
};

}  // namespace vlm

#include "infer/engine/engine_turns.h"

#include <algorithm>

namespace vlm::infer {

EngineTurns::Turn EngineTurns::take() {
  std::unique_lock lock(mutex_);
  const std::uint64_t ticket = next_ticket_++;
  changed_.wait(lock, [&] { return ticket == current_ticket_; });
  return Turn(this);
}

void EngineTurns::end_turn() {
  {
    const std::lock_guard lock(mutex_);
    ++current_ticket_;
  }
  changed_.notify_all();
}

std::int64_t EngineTurns::note(const void* engine, const Need& need) {
  const std::lock_guard lock(mutex_);
  needs_[engine] = need;
  std::int64_t free = places_;
  bool is_oldest = need.waiting_since.has_value(), is_alone = true;
  for (const auto& [other, its] : needs_) {
    free -= its.running;
    if (other == engine || !its.waiting_since) continue;
    is_alone = false;
    is_oldest = is_oldest && *need.waiting_since <= *its.waiting_since;
  }
  if (!is_oldest || free <= 0) return need.running;
  return need.running + (is_alone ? free : 1);  // the next oldest may be another's
}

void EngineTurns::leave(const void* engine) {
  const std::lock_guard lock(mutex_);
  needs_.erase(engine);
}

}  // namespace vlm::infer

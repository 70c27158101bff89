#include "infer/library/cancellation.h"

namespace vlm {

Cancellation::Cancellation() : state_(std::make_shared<State>()) {}

void Cancellation::request() const {
  const std::lock_guard lock(state_->mutex);
  state_->is_requested = true;
  for (const auto& [number, call] : state_->calls) call();
}

bool Cancellation::is_requested() const {
  const std::lock_guard lock(state_->mutex);
  return state_->is_requested;
}

}  // namespace vlm

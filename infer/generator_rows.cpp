// Which groups and rows of the cache requests have, and how they leave.
#include <algorithm>
#include <functional>
#include <utility>

#include "infer/generator.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {

void Generator::make_cache(std::int64_t rows_per_group) {
  cache_.emplace(model_->cache_shape(), rows_per_group,
                 at::TensorOptions().dtype(model_->dtype()).device(model_->device()), kv_storage_);
}

// Places at work stay side by side: new ones come behind the last.
void Generator::give_places(ActiveGroup& group) {
  const std::int64_t rows = cache_->rows_per_group();
  for (std::int64_t have = 0; have < group.rows_needed(); have += rows) {
    group.places.push_back(std::ssize(places_));
    places_.push_back(&group);
  }
}

// The last place moves into each gap.
void Generator::free_places(ActiveGroup& group) {
  std::sort(group.places.begin(), group.places.end(), std::greater<>());
  for (const std::int64_t place : std::exchange(group.places, {})) {
    const std::int64_t last = std::ssize(places_) - 1;
    if (place < last) {
      // A group whose prompt has not begun has its place, and nothing in it yet.
      if (last < cache_->groups()) cache_->move_group(last, place);
      ActiveGroup* moved = places_.back();
      std::replace(moved->places.begin(), moved->places.end(), last, place);
      places_[static_cast<std::size_t>(place)] = moved;
    }
    places_.pop_back();
  }
}

// The row of the cache that a request has as its i-th.
std::int64_t Generator::row_of(const ActiveRequest& one, std::int64_t i) const {
  const std::int64_t rows = cache_->rows_per_group(), row = one.offset + i;
  return one.group->places[static_cast<std::size_t>(row / rows)] * rows + row % rows;
}

void Generator::cancel(std::uint64_t id) {
  const auto end_in = [&](ActiveGroup& group) {
    const auto is_meant = [&](const ActiveRequest& one) {
      return one.request.id == id && !one.is_finished;
    };
    for (ActiveRequest& one : group.pending) {
      if (is_meant(one)) end(one, Outcome::kCancelled, "cancelled");
    }
    for (auto& one : group.requests) {
      if (is_meant(*one)) end(*one, Outcome::kCancelled, "cancelled");
    }
  };
  for (auto& group : waiting_) end_in(*group);
  for (auto& group : entering_) end_in(*group);
  for (auto& group : active_) end_in(*group);
  remove_finished();
}

// Requests whose time is over are answered with an error.
void Generator::end_late_requests() {
  const auto end_if_late = [this](ActiveRequest& one) {
    if (one.is_finished || !one.is_late()) return;
    end(one, Outcome::kTimedOut,
        Error({.what = "the answer took too long",
               .wanted = concat("at most ", one.request.time_limit_s, " s"),
               .hint = "--item-timeout sets the limit"})
            .what());
  };
  for (auto& group : entering_) std::ranges::for_each(group->pending, end_if_late);
  for (auto& group : active_) {
    for (auto& one : group->requests) end_if_late(*one);
  }
}

void Generator::remove_finished() {
  const auto leaves = [this](std::unique_ptr<ActiveGroup>& group) {
    std::erase_if(group->pending, [](const ActiveRequest& one) { return one.is_finished; });
    std::erase_if(group->requests, [](const auto& one) { return one->is_finished; });
    if (group->is_empty()) free_places(*group);
    return group->is_empty();
  };
  for (std::size_t g = active_.size(); g-- > 0;) {
    if (!leaves(active_[g])) continue;
    active_[g] = std::move(active_.back());
    active_.pop_back();
  }
  std::erase_if(entering_, leaves);
  std::erase_if(waiting_, leaves);
}

}  // namespace vlm::infer

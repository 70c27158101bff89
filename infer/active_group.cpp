#include "infer/active_group.h"

#include <algorithm>

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostRequests = 8;  // requests of one group decoded at a time

std::size_t common_prefix(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

// How many ids all prompts begin with.
std::size_t shared_prefix(const std::vector<Request>& requests) {
  std::size_t shared = requests[0].prompt.size();
  for (const Request& request : requests) {
    shared = std::min(shared, common_prefix(requests[0].prompt, request.prompt));
  }
  return shared;
}

bool can_share(const std::vector<Request>& requests) {
  const std::size_t shared = shared_prefix(requests);
  return shared > 1 && std::ranges::all_of(requests, [&](const Request& request) {
           return request.layout.can_share(static_cast<std::int64_t>(shared));
         });
}

std::unique_ptr<ActiveGroup> make_group(std::vector<Request> requests,
                                        std::shared_ptr<PictureFeatures> pictures,
                                        std::int64_t most_choice_rows) {
  auto group = std::make_unique<ActiveGroup>();
  group->pictures = std::move(pictures);
  std::size_t shared = shared_prefix(requests);
  group->has_whole_prompt = requests.size() == 1 && requests[0].choices.empty();
  if (!group->has_whole_prompt) {
    // Every request needs a token of its own whose logits are the first.
    for (const Request& request : requests) shared = std::min(shared, request.prompt.size() - 1);
  }
  const auto& first = requests[0].prompt;
  group->prefix.assign(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(shared));
  const PromptLayout& layout = requests[0].layout;
  const auto length = static_cast<std::int64_t>(shared);
  if (layout.positions.defined()) group->positions = layout.positions.narrow(1, 0, length);
  group->can_share = layout.can_share_prefix;
  group->submitted = std::chrono::steady_clock::now();
  group->next_position = layout.position_of(length, std::ssize(first));
  for (Request& request : requests) {
    ActiveRequest active{.group = group.get()};
    active.suffix.assign(request.prompt.begin() + static_cast<std::ptrdiff_t>(shared),
                         request.prompt.end());
    active.width = request.choices.empty()
                       ? request.options.rows()
                       : std::min<std::int64_t>(std::ssize(request.choices), most_choice_rows);
    active.request = std::move(request);
    group->pending.push_back(std::move(active));
  }
  return group;
}

}  // namespace

bool ActiveRequest::is_late() const {
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
  return begun != Moment() && request.time_limit_s > 0 && passed.count() > request.time_limit_s;
}

std::int64_t ActiveGroup::rows_needed() const {
  std::int64_t widest = 1;
  for (const ActiveRequest& request : pending) widest = std::max(widest, request.width);
  return widest * std::min<std::int64_t>(std::ssize(pending), kMostRequests);
}

void ActiveGroup::enter() {
  entered = std::chrono::steady_clock::now();
  for (const ActiveRequest& one : pending) {
    if (one.request.on_start) one.request.on_start();
  }
}

std::int64_t ActiveGroup::tail_needed() const {
  std::int64_t most = 0;
  for (const ActiveRequest& one : pending) {
    std::int64_t tokens = one.request.options.max_new_tokens;
    if (!one.request.choices.empty()) {
      const auto longest = std::ranges::max_element(
          one.request.choices, {}, [](const auto& choice) { return choice.size(); });
      tokens = std::ssize(*longest);
    }
    most = std::max(most, std::ssize(one.suffix) + tokens);
  }
  return most;
}

std::vector<std::unique_ptr<ActiveGroup>> make_groups(RequestGroup group,
                                                      std::int64_t most_choice_rows) {
  std::vector<std::unique_ptr<ActiveGroup>> groups;
  if (can_share(group.requests)) {
    groups.push_back(
        make_group(std::move(group.requests), std::move(group.pictures), most_choice_rows));
    return groups;
  }
  for (Request& request : group.requests) {
    std::vector<Request> single;
    single.push_back(std::move(request));
    groups.push_back(make_group(std::move(single), group.pictures, most_choice_rows));
  }
  return groups;
}

}  // namespace vlm::infer

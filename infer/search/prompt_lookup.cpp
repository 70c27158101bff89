#include "infer/search/prompt_lookup.h"

#include <algorithm>

namespace vlm::infer {
namespace {

using Ids = std::span<const std::int64_t>;

constexpr std::int64_t kEnd = -1;  // no token
constexpr std::size_t kMostMatched = 3, kLeastMatched = 2;
constexpr std::size_t kMostRemembered = 16384;  // tokens

// What follows the latest place of `run` in `text` at which something does.
Ids find_continuation(Ids text, Ids run) {
  if (text.size() <= run.size()) return {};
  const Ids searched = text.first(text.size() - 1);
  const auto found = std::find_end(searched.begin(), searched.end(), run.begin(), run.end());
  if (found == searched.end()) return {};
  return text.subspan(static_cast<std::size_t>(found - searched.begin()) + run.size());
}

}  // namespace

std::vector<std::int64_t> PromptLookup::guess(Ids sequence, std::int64_t most) const {
  for (std::size_t length = kMostMatched; length >= kLeastMatched; --length) {
    if (sequence.size() < length) continue;
    const Ids run = sequence.last(length);
    for (const Ids text : {sequence, Ids(answers_)}) {
      Ids found = find_continuation(text, run);
      found = found.first(std::min(found.size(), static_cast<std::size_t>(most)));
      const auto end = std::find(found.begin(), found.end(), kEnd);
      if (end != found.begin()) return {found.begin(), end};
    }
  }
  return {};
}

void PromptLookup::remember(Ids answer) {
  answers_.insert(answers_.end(), answer.begin(), answer.end());
  answers_.push_back(kEnd);
  if (answers_.size() > 2 * kMostRemembered) {
    answers_.erase(answers_.begin(), answers_.end() - kMostRemembered);
  }
}

}  // namespace vlm::infer

#include "data/loss_turns.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Behind the last message that is not the assistant's.
std::size_t find_completion(const Sample& sample) {
  if (sample.completion) return *sample.completion;
  std::size_t begin = sample.messages.size();
  while (begin > 0 && sample.messages[begin - 1].role == "assistant") --begin;
  return begin;
}

}  // namespace

const std::vector<std::string>& train_on_names() {
  static const std::vector<std::string> names = {"assistant", "last_assistant", "completion",
                                                 "all"};
  return names;
}

TrainOn parse_train_on(const std::string& name) {
  const auto& names = train_on_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<TrainOn>(found - names.begin());
  throw Error({.what = "unknown value",
               .where = "train_on",
               .got = concat("'", name, "'"),
               .wanted = join(names)});
}

LossTurns find_loss_turns(const Sample& sample, TrainOn train_on) {
  LossTurns turns = assistant_turns(sample.messages);
  std::vector<bool>& learned = turns.is_learned;
  turns.with_headers = train_on == TrainOn::kAll;
  if (turns.with_headers) learned.assign(learned.size(), true);
  const std::size_t first =
      train_on == TrainOn::kCompletion ? find_completion(sample) : sample.completion.value_or(0);
  if (!turns.with_headers) std::fill_n(learned.begin(), first, false);
  if (train_on == TrainOn::kLastAssistant) {
    const auto last = std::find(learned.rbegin(), learned.rend(), true);
    if (last != learned.rend()) std::fill(last + 1, learned.rend(), false);
  }
  for (std::size_t i = 0; i < sample.loss.size(); ++i) {
    if (sample.loss[i]) learned[i] = *sample.loss[i];
  }
  return turns;
}

}  // namespace vlm::data

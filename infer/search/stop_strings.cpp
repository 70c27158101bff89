#include "infer/search/stop_strings.h"

#include <algorithm>

namespace vlm::infer {

StopStrings::StopStrings(const Tokenizer& tokenizer, std::vector<std::string> strings)
    : tokenizer_(tokenizer), strings_(std::move(strings)) {
  for (const std::string& text : strings_) longest_ = std::max(longest_, text.size());
}

bool StopStrings::is_completed_by_last(std::span<const std::int64_t> sequence) const {
  if (strings_.empty() || sequence.empty()) return false;
  // A token is at least a byte long, so this many hold every string that ends in the last one.
  const auto tail = sequence.last(std::min(sequence.size(), longest_ + 1));
  const std::string text = tokenizer_.decode(tail, /*skip_special_tokens=*/false);
  const std::string before = tokenizer_.decode(tail.first(tail.size() - 1), false);
  for (const std::string& stop : strings_) {
    // The first place at which the string would reach into the last token's text.
    const std::size_t first = before.size() >= stop.size() ? before.size() - stop.size() + 1 : 0;
    if (text.find(stop, first) != std::string::npos) return true;
  }
  return false;
}

}  // namespace vlm::infer

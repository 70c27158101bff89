// Decoding with guessed tokens: several tokens of an answer in one pass (search/prompt_lookup.h).
#include <algorithm>

#include "infer/generator.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

// Rows of x up to which products take about the time of one, and give each row what it gets alone.
constexpr std::int64_t kMostRows = 16;

}  // namespace

// What each request feeds: its next token and guesses of those behind it. Empty where there are no
// guesses, or a pass by rows of one token each is needed.
std::vector<Ids> Generator::guess_next(const Requests& requests) const {
  // Where keys of a whole sequence may change (LongRoPE) nothing can be taken back.
  if (model_->switch_length() > 0) return {};
  const std::int64_t most = kMostRows / std::ssize(requests) - 1;
  std::vector<Ids> fed;
  bool has_guesses = false;
  for (const ActiveRequest* one : requests) {
    const GenerationOptions& options = one->request.options;
    if (options.rows() > 1) return {};
    fed.push_back(one->next);
    const std::span<const Hypothesis> answers = one->search->answers();
    const std::int64_t wanted = std::min(most, options.prompt_lookup_num_tokens);
    if (wanted <= 0 || answers.empty()) continue;
    Ids sequence = one->request.prompt;
    sequence.insert(sequence.end(), answers[0].ids.begin(), answers[0].ids.end());
    const std::int64_t room = model_->max_positions() - std::ssize(sequence);
    if (room <= 0) continue;
    const Ids guesses = lookup_.guess(sequence, std::min(wanted, room));
    has_guesses = has_guesses || !guesses.empty();
    fed.back().insert(fed.back().end(), guesses.begin(), guesses.end());
  }
  return has_guesses ? fed : std::vector<Ids>();
}

// Feeds them, and takes each search as far as its guesses are what it chooses.
void Generator::check_guesses(const Requests& requests, const std::vector<Ids>& fed) {
  std::vector<std::size_t> order(requests.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](std::size_t i) { return row_of(*requests[i]); });
  Ids rows, before;
  std::vector<Ids> ids;
  for (const std::size_t i : order) {
    rows.push_back(row_of(*requests[i]));
    before.push_back(cache_->tail_length(rows.back()));
    ids.push_back(fed[i]);
  }
  const at::Tensor hidden = extend(rows, ids);  // [B, T, C]
  const Logits logits = head(hidden.flatten(0, 1));
  for (std::size_t i = 0; i < order.size(); ++i) {
    ActiveRequest& one = *requests[order[i]];
    timing_.guessed_tokens += std::ssize(ids[i]) - 1;
    std::size_t fit = 0;  // fed tokens that stay
    do {
      const auto row =
          static_cast<std::int64_t>(i) * hidden.size(1) + static_cast<std::int64_t>(fit);
      advance(one, logits.narrow(0, row, 1));
      ++fit;
      ++timing_.decoded_tokens;
    } while (!one.is_finished && fit < ids[i].size() && one.next[0] == ids[i][fit]);
    timing_.right_guesses += static_cast<std::int64_t>(fit) - 1;
    cache_->cut_tail(rows[i], before[i] + static_cast<std::int64_t>(fit));
  }
}

}  // namespace vlm::infer

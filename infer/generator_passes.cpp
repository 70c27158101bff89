// The generator's forward passes: what goes into the model together, and whose logits come out.
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "infer/generator.h"
#include "vlm/core/run/stopwatch.h"
#include "vlm/nn/upload.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kMostHeadRows = 512;  // positions whose logits are held at once
// Rows of tokens up to which products take about the time of one, and give each row what it gets
// alone: with guesses, a pass has no more.
constexpr std::int64_t kMostGuessRows = 16;

// Rows padded on the right with `pad`, [B, T].
at::Tensor pad_right(const std::vector<Ids>& rows, std::int64_t pad) {
  std::size_t longest = 0;
  for (const Ids& row : rows) longest = std::max(longest, row.size());
  at::Tensor ids = at::full(
      {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(longest)}, pad, at::kLong);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy(rows[i].begin(), rows[i].end(), ids.data_ptr<std::int64_t>() + i * longest);
  }
  return ids;
}

// Some rows of logits, in this order: a view where they lie side by side.
at::Tensor take_rows(const at::Tensor& logits, const Ids& rows) {
  for (std::size_t i = 1; i < rows.size(); ++i) {
    if (rows[i] != rows[0] + static_cast<std::int64_t>(i)) {
      return logits.index_select(0, at::tensor(rows, at::kLong));
    }
  }
  return logits.narrow(0, rows[0], std::ssize(rows));
}

// hidden [B, T, C], one position a row → [B, C]
at::Tensor select_positions(const at::Tensor& hidden, const Ids& positions) {
  Ids flat = positions;
  for (std::size_t i = 0; i < flat.size(); ++i) {
    flat[i] += static_cast<std::int64_t>(i) * hidden.size(1);
  }
  return hidden.flatten(0, 1).index_select(0, upload(at::tensor(flat, at::kLong), hidden.device()));
}

}  // namespace

void Generator::prefill(const std::vector<ActiveGroup*>& groups) {
  std::vector<Ids> prompts;
  Ids slots, lengths, next;
  std::vector<RowPositions> positions;
  std::vector<at::Tensor> features;
  for (ActiveGroup* group : groups) {
    prompts.push_back(group->prefix);
    slots.push_back(group->places.front());
    lengths.push_back(std::ssize(group->prefix));
    positions.push_back({group->positions, lengths.back()});
    next.push_back(group->next_position);
    if (group->pictures && group->pictures->features.defined()) {
      features.push_back(group->pictures->features);
    }
  }
  const at::Tensor embeddings = model_->embed(pad_right(prompts, model_->filler_id()),
                                              features.empty() ? at::Tensor() : at::cat(features));
  cache_->begin_prefill(slots, lengths, {.positions = stack_positions(positions), .next = next});
  const at::Tensor hidden = model_->decode(embeddings, {}, &*cache_);  // [n, T, C]

  Requests ready;
  Ids rows, last;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    groups[i]->pictures.reset();
    if (!groups[i]->has_whole_prompt) continue;
    rows.push_back(static_cast<std::int64_t>(i));
    last.push_back(lengths[i] - 1);
    ready.push_back(&start_first(*groups[i]));
  }
  if (ready.empty()) return;
  const at::Tensor index = upload(at::tensor(rows, at::kLong), hidden.device());
  const Logits logits = head(select_positions(hidden.index_select(0, index), last));
  for (std::size_t i = 0; i < ready.size(); ++i) {
    advance(*ready[i], logits.narrow(0, static_cast<std::int64_t>(i), 1));
  }
}

// The one request of a group whose prefix is its prompt is at work.
ActiveRequest& Generator::start_first(ActiveGroup& group) {
  group.requests.push_back(std::make_unique<ActiveRequest>(std::move(group.pending.front())));
  group.pending.pop_front();
  return *group.requests.back();
}

// Feeds ids[i] behind rows[i]; rows ascend. → hidden [B, T, C]
at::Tensor Generator::extend(const Ids& rows, const std::vector<Ids>& ids) {
  Ids counts;
  for (const Ids& row : ids) counts.push_back(std::ssize(row));
  const at::Tensor there = cache_->begin_extend(rows, counts, pad_right(ids, 0));
  return model_->decode(model_->embed_tokens(there), {}, &*cache_);
}

// [M, C] → [M, V]
Generator::Logits Generator::head(const at::Tensor& hidden) {
  return model_->logits(hidden).to(at::kCPU, at::kFloat);
}

void Generator::extend_suffixes(const Requests& requests) {
  if (requests.empty()) return;
  Requests sorted = requests;
  std::sort(sorted.begin(), sorted.end(), [&](const ActiveRequest* a, const ActiveRequest* b) {
    return row_of(*a) < row_of(*b);
  });
  Ids rows, last;
  std::vector<Ids> ids;
  for (ActiveRequest* one : sorted) {
    cache_->clear_tail(row_of(*one));
    rows.push_back(row_of(*one));
    ids.push_back(one->suffix);
    last.push_back(std::ssize(one->suffix) - 1);
  }
  const Logits logits = head(select_positions(extend(rows, ids), last));
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    sorted[i]->is_started = true;
    advance(*sorted[i], logits.narrow(0, static_cast<std::int64_t>(i), 1));
  }
}

// Scores the next choices of each request: every choice in a row of its own behind the prefix.
void Generator::score_choices(const Requests& requests) {
  if (requests.empty()) return;
  struct Scored {
    ActiveRequest* one;
    std::int64_t row;
    const Ids* choice;
    ChoiceScore score = {};
  };
  std::vector<Scored> scored;
  for (ActiveRequest* one : requests) {
    const auto& choices = one->request.choices;
    const auto begin = one->scores.size();
    const auto end = std::min(choices.size(), begin + static_cast<std::size_t>(one->width));
    for (std::size_t i = begin; i < end; ++i) {
      const std::int64_t row = row_of(*one, static_cast<std::int64_t>(i - begin));
      cache_->clear_tail(row);
      scored.push_back({one, row, &choices[i]});
    }
  }
  std::vector<Scored*> by_row;
  for (Scored& one : scored) by_row.push_back(&one);
  std::sort(by_row.begin(), by_row.end(),
            [](const Scored* a, const Scored* b) { return a->row < b->row; });
  Ids rows;
  std::vector<Ids> ids;
  for (const Scored* one : by_row) {
    rows.push_back(one->row);
    ids.push_back(one->one->suffix);
    ids.back().insert(ids.back().end(), one->choice->begin(), one->choice->end() - 1);
  }
  const at::Tensor hidden = extend(rows, ids);  // [B, T, C]
  for (std::size_t i = 0; i < by_row.size(); ++i) {
    const Ids& choice = *by_row[i]->choice;
    const std::int64_t first = std::ssize(by_row[i]->one->suffix) - 1;
    const at::Tensor states =
        hidden[static_cast<std::int64_t>(i)].narrow(0, first, std::ssize(choice));
    ChoiceScore& score = by_row[i]->score;
    score.tokens = std::ssize(choice);
    for (std::int64_t t = 0; t < std::ssize(choice); t += kMostHeadRows) {
      const std::int64_t count = std::min(kMostHeadRows, std::ssize(choice) - t);
      const at::Tensor logprobs = head(states.narrow(0, t, count)).log_softmax(-1);
      const at::Tensor wanted =
          at::tensor(at::ArrayRef<std::int64_t>(choice.data() + t, static_cast<std::size_t>(count)),
                     at::kLong);
      const at::Tensor chosen = logprobs.gather(1, wanted.unsqueeze(1)).to(at::kDouble);  // [n, 1]
      score.logprob += chosen.sum().item<double>();
      const auto* first_chosen = chosen.const_data_ptr<double>();
      score.logprobs.insert(score.logprobs.end(), first_chosen, first_chosen + count);
      const std::int64_t top = by_row[i]->one->request.options.top_logprobs;
      for (std::int64_t k = 0; top > 0 && k < count; ++k) {
        score.top.push_back(find_top(logprobs[k], top));
      }
    }
  }
  // In the order of the choices, and only when all are there: a pass that failed is begun again.
  for (const Scored& one : scored) one.one->scores.push_back(one.score);
  for (ActiveRequest* one : requests) {
    if (one->scores.size() == one->request.choices.size()) finish(*one);
  }
}

void Generator::decode_rows() {
  const Stopwatch watch(timing_.decode_s);
  Requests requests;
  for (auto& group : active_) {
    for (auto& one : group->requests) {
      if (!one->is_finished && !one->next.empty()) requests.push_back(one.get());
    }
  }
  run_apart(requests, [this](const Requests& some) { decode_rows_of(some); });
}

// One token for every row of the requests.
void Generator::decode_rows_of(const Requests& requests) {
  if (requests.empty()) return;
  const std::vector<Ids> fed = guess_next(requests);
  if (!fed.empty()) return check_guesses(requests, fed);
  struct Row {
    std::int64_t row;
    std::size_t request;
    std::size_t of_request;  // which of its rows
  };
  std::vector<Row> sorted;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (std::size_t j = 0; j < requests[i]->next.size(); ++j) {
      sorted.push_back({row_of(*requests[i], static_cast<std::int64_t>(j)), i, j});
    }
  }
  std::sort(sorted.begin(), sorted.end(), [](const Row& a, const Row& b) { return a.row < b.row; });
  Ids rows, ids;
  std::vector<Ids> found(requests.size());  // of each row of a request, its place in the pass
  for (std::size_t i = 0; i < requests.size(); ++i) found[i].resize(requests[i]->next.size());
  for (const Row& one : sorted) {
    found[one.request][one.of_request] = std::ssize(rows);
    rows.push_back(one.row);
    ids.push_back(requests[one.request]->next[one.of_request]);
  }
  const bool needs_logits =
      model_->device().is_cpu() || !std::ranges::all_of(requests, [](const ActiveRequest* one) {
        return one->search->takes_likeliest();
      });
  const Logits logits = needs_logits ? step_.find_logits(*cache_, rows, ids) : Logits();
  const std::vector<ChosenToken> likeliest =
      needs_logits ? std::vector<ChosenToken>() : step_.find_likeliest(*cache_, rows, ids);
  timing_.decoded_tokens += std::ssize(rows);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (needs_logits) {
      advance(*requests[i], take_rows(logits, found[i]));
    } else {
      std::vector<ChosenToken> chosen;
      for (const std::int64_t row : found[i])
        chosen.push_back(likeliest[static_cast<std::size_t>(row)]);
      feed(*requests[i], requests[i]->search->append(chosen));
    }
  }
}

// What each request feeds: its next token and guesses of those behind it. Empty where there are no
// guesses, or a pass by rows of one token each is needed.
std::vector<Ids> Generator::guess_next(const Requests& requests) const {
  const auto asks = [](const ActiveRequest* one) {
    return one->request.options.prompt_lookup_num_tokens > 0;
  };
  const auto has_one_row = [](const ActiveRequest* one) {
    return one->request.options.rows() == 1;
  };
  // Where keys of a whole sequence may change (LongRoPE) nothing can be taken back.
  if (std::ranges::none_of(requests, asks) || !std::ranges::all_of(requests, has_one_row) ||
      model_->switch_length() > 0) {
    return {};
  }
  const std::int64_t most = kMostGuessRows / std::ssize(requests) - 1;
  std::vector<Ids> fed;
  bool has_guesses = false;
  for (const ActiveRequest* one : requests) {
    fed.push_back(one->next);
    const GenerationOptions& options = one->request.options;
    const Ids& answer = one->search->answers()[0].ids;
    const std::int64_t wanted = std::min(
        {most, options.prompt_lookup_num_tokens, options.max_new_tokens - std::ssize(answer) - 1});
    if (wanted <= 0) continue;
    Ids sequence = one->request.prompt;
    sequence.insert(sequence.end(), answer.begin(), answer.end());
    const Ids guesses = lookup_.guess(sequence, wanted);
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

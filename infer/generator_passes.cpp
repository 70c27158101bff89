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
    slots.push_back(group->index);
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

  std::vector<ActiveRequest*> ready;
  Ids rows, last;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    groups[i]->pictures.reset();
    if (!groups[i]->has_whole_prompt) continue;
    rows.push_back(static_cast<std::int64_t>(i));
    last.push_back(lengths[i] - 1);
    groups[i]->requests.push_back(
        std::make_unique<ActiveRequest>(std::move(groups[i]->pending.front())));
    groups[i]->pending.pop_front();
    ready.push_back(groups[i]->requests.back().get());
  }
  if (ready.empty()) return;
  const at::Tensor index = upload(at::tensor(rows, at::kLong), hidden.device());
  const Logits logits = head(select_positions(hidden.index_select(0, index), last));
  for (std::size_t i = 0; i < ready.size(); ++i) {
    advance(*ready[i], logits.narrow(0, static_cast<std::int64_t>(i), 1));
  }
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

void Generator::extend_suffixes(const std::vector<ActiveRequest*>& requests) {
  std::vector<ActiveRequest*> sorted = requests;
  const auto row_of = [this](const ActiveRequest* one) {
    return one->group->index * cache_->rows_per_group() + one->offset;
  };
  std::sort(sorted.begin(), sorted.end(),
            [&](const ActiveRequest* a, const ActiveRequest* b) { return row_of(a) < row_of(b); });
  Ids rows, last;
  std::vector<Ids> ids;
  for (ActiveRequest* one : sorted) {
    cache_->clear_tail(row_of(one));
    rows.push_back(row_of(one));
    ids.push_back(one->suffix);
    last.push_back(std::ssize(one->suffix) - 1);
    one->is_started = true;
  }
  const Logits logits = head(select_positions(extend(rows, ids), last));
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    advance(*sorted[i], logits.narrow(0, static_cast<std::int64_t>(i), 1));
  }
}

// Scores the next choices of each request: every choice in a row of its own behind the prefix.
void Generator::score_choices(const std::vector<ActiveRequest*>& requests) {
  struct Scored {
    ActiveRequest* one;
    std::int64_t row;
    const Ids* choice;
  };
  std::vector<Scored> scored;
  for (ActiveRequest* one : requests) {
    const auto& choices = one->request.choices;
    const auto begin = one->scores.size();
    const auto end = std::min(choices.size(), begin + static_cast<std::size_t>(one->width));
    for (std::size_t i = begin; i < end; ++i) {
      const std::int64_t row = one->group->index * cache_->rows_per_group() + one->offset +
                               static_cast<std::int64_t>(i - begin);
      cache_->clear_tail(row);
      scored.push_back({one, row, &choices[i]});
    }
  }
  std::sort(scored.begin(), scored.end(),
            [](const Scored& a, const Scored& b) { return a.row < b.row; });
  Ids rows;
  std::vector<Ids> ids;
  for (const Scored& one : scored) {
    rows.push_back(one.row);
    ids.push_back(one.one->suffix);
    ids.back().insert(ids.back().end(), one.choice->begin(), one.choice->end() - 1);
  }
  const at::Tensor hidden = extend(rows, ids);  // [B, T, C]
  for (std::size_t i = 0; i < scored.size(); ++i) {
    const Ids& choice = *scored[i].choice;
    const std::int64_t first = std::ssize(scored[i].one->suffix) - 1;
    const at::Tensor states =
        hidden[static_cast<std::int64_t>(i)].narrow(0, first, std::ssize(choice));
    ChoiceScore score{.tokens = std::ssize(choice)};
    for (std::int64_t t = 0; t < std::ssize(choice); t += kMostHeadRows) {
      const std::int64_t count = std::min(kMostHeadRows, std::ssize(choice) - t);
      const at::Tensor logprobs = head(states.narrow(0, t, count)).log_softmax(-1);
      const at::Tensor wanted =
          at::tensor(at::ArrayRef<std::int64_t>(choice.data() + t, static_cast<std::size_t>(count)),
                     at::kLong);
      score.logprob += logprobs.gather(1, wanted.unsqueeze(1)).sum(at::kDouble).item<double>();
    }
    scored[i].one->scores.push_back(score);
  }
  for (ActiveRequest* one : requests) {
    if (one->scores.size() == one->request.choices.size()) finish(*one);
  }
}

// One token for every row at work.
void Generator::decode_rows() {
  const Stopwatch watch(timing_.decode_s);
  std::vector<ActiveRequest*> requests;
  Ids rows, ids;
  for (auto& group : active_) {
    std::vector<ActiveRequest*> sorted;
    for (auto& one : group->requests) {
      if (!one->is_finished && !one->next.empty()) sorted.push_back(one.get());
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const ActiveRequest* a, const ActiveRequest* b) { return a->offset < b->offset; });
    for (ActiveRequest* one : sorted) {
      requests.push_back(one);
      for (std::size_t i = 0; i < one->next.size(); ++i) {
        rows.push_back(group->index * cache_->rows_per_group() + one->offset +
                       static_cast<std::int64_t>(i));
        ids.push_back(one->next[i]);
      }
    }
  }
  if (requests.empty()) return;
  timing_.decoded_tokens += std::ssize(rows);
  const bool needs_logits =
      model_->device().is_cpu() || !std::ranges::all_of(requests, [](const ActiveRequest* one) {
        return one->search->takes_likeliest();
      });
  const Logits logits = needs_logits ? step_.find_logits(*cache_, rows, ids) : Logits();
  const std::vector<ChosenToken> likeliest =
      needs_logits ? std::vector<ChosenToken>() : step_.find_likeliest(*cache_, rows, ids);
  std::int64_t begin = 0;
  for (ActiveRequest* one : requests) {
    const std::int64_t count = std::ssize(one->next);
    if (needs_logits) {
      advance(*one, logits.narrow(0, begin, count));
    } else {
      feed(*one,
           one->search->append({likeliest.begin() + begin, likeliest.begin() + begin + count}));
    }
    begin += count;
  }
}

}  // namespace vlm::infer

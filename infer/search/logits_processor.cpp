#include "infer/search/logits_processor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

using Sequence = std::vector<std::int64_t>;

constexpr float kNever = -std::numeric_limits<float>::infinity();

// The steps below change one row's scores in place; `row` points at V floats.
void penalize_repetition(float* row, std::int64_t vocab, const Sequence& sequence, double penalty) {
  std::vector<bool> is_done(static_cast<std::size_t>(vocab), false);
  const auto factor = static_cast<float>(penalty);
  for (const std::int64_t id : sequence) {
    if (id < 0 || id >= vocab || is_done[static_cast<std::size_t>(id)]) continue;
    is_done[static_cast<std::size_t>(id)] = true;
    row[id] = row[id] < 0 ? row[id] * factor : row[id] / factor;
  }
}

// Bans every token that would complete an n-gram that is already there.
void ban_repeated_ngrams(float* row, std::int64_t vocab, const Sequence& sequence, std::int64_t n) {
  const auto length = static_cast<std::int64_t>(sequence.size());
  const auto suffix = sequence.end() - std::min(n - 1, length);
  for (std::int64_t begin = 0; begin + n <= length; ++begin) {
    const auto window = sequence.begin() + begin;
    const std::int64_t last = *(window + n - 1);
    if (last < vocab && std::equal(suffix, sequence.end(), window)) row[last] = kNever;
  }
}

void ban_words(float* row, std::int64_t vocab, const Sequence& sequence,
               const GenerationOptions& options) {
  for (const Sequence& word : options.bad_words_ids) {
    const auto& ends = options.eos_token_ids;
    const bool is_end =
        word.size() == 1 && std::find(ends.begin(), ends.end(), word[0]) != ends.end();
    const auto prefix = static_cast<std::ptrdiff_t>(word.size()) - 1;
    if (is_end || prefix > static_cast<std::ptrdiff_t>(sequence.size())) continue;
    if (word.back() < 0 || word.back() >= vocab) {
      throw Error({.what = "bad_words_ids has an id outside the vocabulary",
                   .got = concat(word.back()),
                   .wanted = concat("0 to ", vocab - 1)});
    }
    if (std::equal(sequence.end() - prefix, sequence.end(), word.begin())) {
      row[word.back()] = kNever;
    }
  }
}

// What a grammar allows goes before bans: a row that these leave nothing of is as before.
void restore_empty_rows(const at::Tensor& processed, const at::Tensor& before) {
  const std::int64_t vocab = processed.size(1);
  for (std::int64_t r = 0; r < processed.size(0); ++r) {
    float* row = processed.data_ptr<float>() + r * vocab;
    if (std::any_of(row, row + vocab, [](float score) { return score != kNever; })) continue;
    std::copy_n(before.const_data_ptr<float>() + r * vocab, vocab, row);
  }
}

at::Tensor keep_top_k(const at::Tensor& scores, std::int64_t k) {
  const auto best = std::get<0>(scores.topk(std::min(k, scores.size(-1)), -1));
  return scores.masked_fill(scores < best.narrow(-1, best.size(-1) - 1, 1), kNever);
}

at::Tensor keep_top_p(const at::Tensor& scores, double top_p, std::int64_t least) {
  const auto [sorted, order] = scores.sort(/*dim=*/-1, /*descending=*/false);
  at::Tensor removed = sorted.softmax(-1).cumsum(-1) <= (1 - top_p);
  const std::int64_t kept = std::min(least, scores.size(-1));
  removed.narrow(-1, scores.size(-1) - kept, kept).fill_(false);
  return scores.masked_fill(removed.scatter(1, order, removed), kNever);
}

at::Tensor keep_min_p(const at::Tensor& scores, double min_p, std::int64_t least) {
  const at::Tensor probabilities = scores.softmax(-1);
  at::Tensor removed = probabilities < probabilities.amax(-1, /*keepdim=*/true) * min_p;
  const auto best = std::get<1>(probabilities.topk(std::min(least, scores.size(-1)), -1));
  removed.scatter_(-1, best, false);
  return scores.masked_fill(removed, kNever);
}

at::Tensor keep_typical(const at::Tensor& scores, double mass, std::int64_t least) {
  const at::Tensor logprobs = scores.log_softmax(-1);
  const at::Tensor entropy = -(logprobs * logprobs.exp()).nansum(-1, /*keepdim=*/true);
  const auto [shifted, order] = (-logprobs - entropy).abs().sort(-1, false);
  const at::Tensor cumulated = scores.gather(-1, order).softmax(-1).cumsum(-1);
  const at::Tensor last = (cumulated < mass).sum(1, true).clamp_max(scores.size(-1) - 1);
  at::Tensor removed = shifted > shifted.gather(1, last);
  removed.narrow(-1, 0, std::min(least, scores.size(-1))).fill_(false);
  return scores.masked_fill(removed.scatter(1, order, removed), kNever);
}

bool has_penalties(const GenerationOptions& options) {
  return options.repetition_penalty != 1.0 || options.no_repeat_ngram_size > 0 ||
         !options.bad_words_ids.empty() ||
         (options.min_new_tokens > 0 && !options.eos_token_ids.empty());
}

at::Tensor filter_for_sampling(at::Tensor scores, const GenerationOptions& options) {
  // Beams need a token beside the end ids to go on with.
  const std::int64_t least =
      options.num_beams > 1 ? static_cast<std::int64_t>(options.eos_token_ids.size()) + 1 : 1;
  if (options.temperature != 1.0) scores = scores / options.temperature;
  if (options.top_k > 0) scores = keep_top_k(scores, std::max(options.top_k, least));
  if (options.top_p < 1.0) scores = keep_top_p(scores, options.top_p, least);
  if (options.min_p) scores = keep_min_p(scores, *options.min_p, least);
  if (options.typical_p < 1.0) scores = keep_typical(scores, options.typical_p, least);
  return scores;
}

}  // namespace

bool changes_logits(const GenerationOptions& options) {
  return options.do_sample || has_penalties(options);
}

at::Tensor process_logits(const at::Tensor& scores, const std::vector<Sequence>& sequences,
                          std::int64_t prompt_tokens, const GenerationOptions& options) {
  at::Tensor processed = scores;
  if (has_penalties(options)) {
    processed = scores.contiguous().clone();
    const std::int64_t vocab = scores.size(1);
    for (std::size_t r = 0; r < sequences.size(); ++r) {
      float* row = processed.data_ptr<float>() + static_cast<std::int64_t>(r) * vocab;
      const Sequence& sequence = sequences[r];
      if (options.repetition_penalty != 1.0) {
        penalize_repetition(row, vocab, sequence, options.repetition_penalty);
      }
      if (options.no_repeat_ngram_size > 0) {
        ban_repeated_ngrams(row, vocab, sequence, options.no_repeat_ngram_size);
      }
      ban_words(row, vocab, sequence, options);
      const auto answered = static_cast<std::int64_t>(sequence.size()) - prompt_tokens;
      if (answered >= options.min_new_tokens) continue;
      for (const std::int64_t id : options.eos_token_ids) {
        if (id >= 0 && id < vocab) row[id] = kNever;
      }
    }
    if (options.grammar) restore_empty_rows(processed, scores.contiguous());
  }
  return options.do_sample ? filter_for_sampling(processed, options) : processed;
}

}  // namespace vlm::infer

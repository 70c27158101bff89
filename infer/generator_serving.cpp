// Serving: prompts go into the model piece by piece, between the tokens of others, and a failure is
// that of its own request.
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "infer/generator.h"
#include "infer/items/item_failure.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stopwatch.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

// Pieces are begun while so little time has passed since the last token of those that decode. One
// piece is the least: a tile, or a picture of patches.
constexpr std::chrono::milliseconds kMostPause(200);
// Tokens of a prompt in one pass: enough to read weights for, and a fraction of a second.
constexpr std::int64_t kPieceTokens = 128, kPieceTokensOnGpu = 512;

std::int64_t count_true(const std::vector<bool>& values, std::int64_t begin, std::int64_t end) {
  return std::count(values.begin() + begin, values.begin() + end, true);
}

}  // namespace

void Generator::set_pace(GenerationPace pace) {
  TORCH_CHECK(is_idle(), "the generator is at work");
  if (std::exchange(pace_, pace) != pace) cache_.reset();  // of other rows a group
}

std::int64_t Generator::piece_tokens() const {
  return model_->device().is_cpu() ? kPieceTokens : kPieceTokensOnGpu;
}

PrefixSource Generator::source_of(const ActiveGroup& group) const {
  const Ids media = model_->media_token_ids();
  PrefixSource source{.ids = group.prefix, .positions = group.positions};
  for (const std::int64_t id : group.prefix) {
    source.is_media.push_back(std::ranges::find(media, id) != media.end());
  }
  if (!group.pictures) return source;
  for (const PicturePart& part : group.pictures->parts) {
    source.parts.emplace_back(part.digest, part.pixels.tokens);
  }
  return source;
}

// What the cache would be large with one more group, which may also be all there is.
std::int64_t Generator::bytes_with(const ActiveGroup& group, bool is_alone) const {
  std::int64_t places = group.rows_needed(), prefix = std::ssize(group.prefix);
  std::int64_t tail = group.tail_needed();
  if (is_alone) return cache_->bytes_of(places, prefix, tail);
  // Buffers that grow for a longer prompt leave room (KvCache::reserve).
  const std::int64_t capacity = cache_->prefix_capacity();
  if (capacity > 0 && prefix > capacity) prefix += prefix / 4;
  places = std::max(places + std::ssize(places_), cache_->groups());
  return cache_->bytes_of(places, std::max(prefix, capacity),
                          std::max({tail, cache_->tail_capacity(), most_tail_}));
}

// Buffers only grow, so they are made anew when nobody uses them and they are in the way.
bool Generator::has_room(const ActiveGroup& group) {
  if (most_cache_bytes_ == 0 || bytes_with(group, /*is_alone=*/false) <= most_cache_bytes_) {
    return true;
  }
  if (!places_.empty()) return false;
  make_cache(1);
  return true;
}

// The oldest first: while there is no room for it, nobody else goes in. Each place has one row.
void Generator::enter_waiting() {
  while (!waiting_.empty() && running() < batch_size_) {
    if (!cache_) make_cache(1);
    if (places_.empty()) most_tail_ = 0;
    ActiveGroup& group = *waiting_.front();
    if (most_cache_bytes_ > 0 && bytes_with(group, /*is_alone=*/true) > most_cache_bytes_) {
      refuse_large(group);
      waiting_.pop_front();
      continue;
    }
    if (!has_room(group)) return;
    most_tail_ = std::max(most_tail_, group.tail_needed());
    cache_->bound_tails(most_tail_);
    give_places(group);
    group.enter();
    entering_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Generator::refuse_large(ActiveGroup& group) {
  const std::string error =
      Error({.what = "the request takes more memory than there is for keys and values",
             .got = concat(bytes_with(group, /*is_alone=*/true), " bytes"),
             .wanted = concat("at most ", most_cache_bytes_),
             .hint = "a shorter prompt, fewer new tokens, or fewer answers at once"})
          .what();
  for (ActiveRequest& one : group.pending) end(one, Outcome::kRefused, error);
}

// Some pieces of the oldest prompts.
void Generator::work_on_entering() {
  const auto end = std::chrono::steady_clock::now() + kMostPause;
  while (!entering_.empty() && std::chrono::steady_clock::now() < end) {
    ActiveGroup& group = *entering_.front();
    try {
      if (!take_further(group)) continue;
      active_.push_back(std::move(entering_.front()));
    } catch (const std::exception& error) {
      fail(group, error);
      free_places(group);
    }
    entering_.pop_front();
    if (entering_.empty() && waiting_.empty()) encoder_->release_memory();
  }
}

// One piece. True when the whole prefix is in the cache.
bool Generator::take_further(ActiveGroup& group) {
  if (group.begun == Moment()) begin_prompt(group);
  if (group.pictures) {
    const Stopwatch watch(timing_.vision_s);
    if (!group.pictures->features.defined()) {
      encoder_->encode_piece(*group.pictures);
      wait_for_device();
      return false;
    }
  }
  if (group.encoded == Moment()) group.encoded = std::chrono::steady_clock::now();
  const Stopwatch watch(timing_.prefill_s);
  prefill_piece(group);
  return group.prefilled == std::ssize(group.prefix);
}

// What an earlier prompt left of the same beginning is put in place. Not for models whose keys
// depend on how long the sequence gets (LongRoPE).
void Generator::begin_prompt(ActiveGroup& group) {
  group.begun = std::chrono::steady_clock::now();
  for (ActiveRequest& one : group.pending) one.begun = group.begun;
  group.can_share = group.can_share && model_->switch_length() == 0 && kept_prefixes_.is_keeping();
  group.source = source_of(group);
  if (!group.can_share) return;
  const auto found = kept_prefixes_.find(group.source, piece_tokens());
  if (!found.prefix) return;
  const std::int64_t tokens = found.tokens;
  const std::int64_t next =
      group.positions.defined() ? group.positions[0][tokens].item<std::int64_t>() : tokens;
  cache_->put_in(group.places.front(), *found.prefix, tokens, next);
  group.prefilled = group.cached = tokens;
  if (count_true(group.source.is_media, tokens, std::ssize(group.prefix)) == 0) {
    group.pictures.reset();  // all of them are in the cache
  }
}

void Generator::prefill_piece(ActiveGroup& group) {
  const std::int64_t whole = std::ssize(group.prefix), begin = group.prefilled;
  const std::int64_t count = std::min(piece_tokens(), whole - begin), end = begin + count;
  at::Tensor features;
  if (group.pictures) {
    const std::int64_t rows = count_true(group.source.is_media, begin, end);
    if (rows > 0) {
      features =
          group.pictures->features.narrow(0, count_true(group.source.is_media, 0, begin), rows);
    }
  }
  PromptPositions given;
  if (group.positions.defined())
    given.positions = group.positions.narrow(1, begin, count).unsqueeze(1);
  if (end == whole) given.next = {group.next_position};
  const at::Tensor ids =
      at::tensor(at::ArrayRef<std::int64_t>(group.prefix)
                     .slice(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)),
                 at::kLong)
          .unsqueeze(0);
  const at::Tensor embeddings = model_->embed(ids, features);
  cache_->begin_piece({.group = group.places.front(),
                       .begin = begin,
                       .count = count,
                       .whole = whole,
                       .given = std::move(given)});
  const at::Tensor hidden = model_->decode(embeddings, {}, &*cache_);  // [1, count, C]
  wait_for_device();
  group.prefilled = end;
  if (end < whole) return;
  keep_prefix(group);
  cache_->copy_prefix(group.places.front(), {group.places.begin() + 1, group.places.end()});
  group.pictures.reset();
  if (group.has_whole_prompt) {
    advance(start_first(group), head(hidden.select(1, count - 1)));
  }
}

// For prompts that begin alike.
void Generator::keep_prefix(ActiveGroup& group) {
  const std::int64_t piece = piece_tokens(), tokens = std::ssize(group.prefix) / piece * piece;
  if (!group.can_share || !kept_prefixes_.wants(group.source, piece)) return;
  kept_prefixes_.keep(std::exchange(group.source, {}),
                      cache_->take_out(group.places.front(), tokens));
}

void Generator::fail(ActiveGroup& group, const std::exception& error) {
  for (ActiveRequest& one : group.pending) {
    if (!one.is_finished) fail(one, error);
  }
  for (auto& one : group.requests) {
    if (!one->is_finished) fail(*one, error);
  }
}

void Generator::fail(ActiveRequest& one, const std::exception& error) {
  end(one, Outcome::kFailed, failure_text(error));
}

// A pass of several requests. In serving, one that throws is made again for each of them alone, and
// what then throws is that request's failure. Searches are not touched before the model is done; of
// the cache the pass's tokens are taken back.
void Generator::run_apart(const Requests& requests,
                          const std::function<void(const Requests&)>& pass) {
  if (!is_serving()) return pass(requests);
  std::vector<std::pair<std::int64_t, std::int64_t>> tails;  // rows, tokens
  for (const ActiveRequest* one : requests) {
    for (std::int64_t i = 0; i < one->width; ++i) {
      const std::int64_t row = row_of(*one, i);
      tails.emplace_back(row, cache_->tail_length(row));
    }
  }
  try {
    return pass(requests);
  } catch (const std::exception& error) {
    // Where a sequence is computed again on the way (LongRoPE) it isn't known what was done.
    if (requests.size() == 1 || model_->switch_length() > 0) {
      for (ActiveRequest* one : requests) fail(*one, error);
      return;
    }
  }
  for (const auto& [row, tokens] : tails) cache_->cut_tail(row, tokens);
  for (ActiveRequest* one : requests) {
    try {
      pass({one});
    } catch (const std::exception& error) {
      fail(*one, error);
    }
  }
}

}  // namespace vlm::infer

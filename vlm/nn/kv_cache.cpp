#include "vlm/nn/kv_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <functional>

#include "vlm/nn/attention.h"
#include "vlm/nn/cpu/kv_rows.h"
#include "vlm/nn/gpu/grid_attention.h"
#include "vlm/nn/upload.h"

namespace vlm {
namespace {

// A step's keys of prefixes are a multiple of this, so that other prompts change it rarely.
constexpr std::int64_t kPrefixPiece = 128;

std::uint64_t next_buffers() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

// `old` [A, K, S, D] in a larger buffer of zeros, or itself when it is large enough.
at::Tensor grown(const at::Tensor& old, std::int64_t places, std::int64_t tokens) {
  if (old.size(0) >= places && old.size(2) >= tokens) return old;
  at::Tensor larger = at::zeros(
      {std::max(places, old.size(0)), old.size(1), std::max(tokens, old.size(2)), old.size(3)},
      old.options());
  larger.narrow(0, 0, old.size(0)).narrow(2, 0, old.size(2)).copy_(old);
  return larger;
}

at::ScalarType held_type(KvStorage storage, at::ScalarType computed) {
  switch (storage) {
    case KvStorage::kBfloat16:
      return at::kBFloat16;
    case KvStorage::kInt8:
      return at::kChar;
    case KvStorage::kComputed:
      break;
  }
  return computed;
}

std::vector<std::int64_t> list_of(const at::Tensor& ids) {
  if (!ids.defined()) return {};
  const std::int64_t* begin = ids.const_data_ptr<std::int64_t>();
  return {begin, begin + ids.numel()};
}

std::int64_t largest(const std::vector<std::int64_t>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

}  // namespace

std::int64_t kv_token_bytes(const KvCacheShape& shape, at::ScalarType held) {
  return 2 * shape.layers * shape.kv_heads * held_width(shape.head_dim, held) *
         static_cast<std::int64_t>(c10::elementSize(held));
}

KvCache::KvCache(const KvCacheShape& shape, std::int64_t rows_per_group,
                 const at::TensorOptions& options, KvStorage storage)
    : shape_(shape),
      rows_per_group_(rows_per_group),
      options_(options),
      held_(held_type(storage, c10::typeMetaToScalarType(options.dtype()))),
      step_(longs()) {
  TORCH_CHECK(storage == KvStorage::kComputed ||
                  (options.device().is_cpu() && options.dtype() == at::kFloat),
              "KvCache: keys of ", options.dtype(), " on ", options.device(), " in fewer bits");
  const at::Tensor empty =
      at::zeros({0, shape.kv_heads, 0, held_width(shape.head_dim, held_)}, options.dtype(held_));
  layers_.assign(static_cast<std::size_t>(shape.layers), CachedLayer{empty, empty, empty, empty});
  if (shape.input_width == 0) return;
  const at::Tensor inputs = at::zeros({0, 1, 0, shape.input_width}, options);
  const at::Tensor none = at::zeros({0, 1, 0, 0}, options);
  layers_.push_back({.prefix_k = inputs, .prefix_v = none, .tail_k = inputs, .tail_v = none});
}

void KvCache::reserve(std::int64_t groups, std::int64_t prefix_tokens, std::int64_t tail_tokens) {
  const auto have = static_cast<std::int64_t>(prefix_lengths_.size());
  if (groups <= have && prefix_tokens <= prefix_capacity_ && tail_tokens <= tail_capacity_) return;
  groups = std::max(groups, have);
  std::int64_t prefix = prefix_capacity_, tail = tail_capacity_;
  if (prefix_tokens > prefix) {
    // The first prompt sets the size; longer ones later leave some room, so that growing is rare.
    prefix = prefix_tokens + (prefix > 0 ? prefix_tokens / 4 : 0);
  }
  if (tail_tokens > tail) {
    const std::int64_t ahead = std::max(tail * 2, std::int64_t{32});
    tail = std::max(tail_tokens, most_tail_ > 0 ? std::min(ahead, most_tail_) : ahead);
  }
  // Sizes are set behind all buffers: when memory runs out, some of these are larger than needed.
  buffers_ = next_buffers();
  for (CachedLayer& layer : layers_) {
    layer.prefix_k = grown(layer.prefix_k, groups, prefix);
    layer.prefix_v = grown(layer.prefix_v, groups, prefix);
    layer.tail_k = grown(layer.tail_k, groups * rows_per_group_, tail);
    layer.tail_v = grown(layer.tail_v, groups * rows_per_group_, tail);
  }
  prefix_capacity_ = prefix;
  tail_capacity_ = tail;
  prefix_lengths_.resize(static_cast<std::size_t>(groups), 0);
  next_positions_.resize(static_cast<std::size_t>(groups), 0);
  tail_lengths_.resize(static_cast<std::size_t>(groups * rows_per_group_), 0);
  is_alone_.resize(static_cast<std::size_t>(groups * rows_per_group_), false);
}

void KvCache::begin_prefill(const std::vector<std::int64_t>& groups,
                            const std::vector<std::int64_t>& lengths,
                            const PromptPositions& positions) {
  pass_ = {.is_prefill = true, .places = groups, .counts = lengths, .tokens = largest(lengths)};
  pass_.next = positions.next.empty() ? lengths : positions.next;
  pass_.whole = lengths;
  reserve(largest(groups) + 1, pass_.tokens, 0);
  pass_.index = upload(at::tensor(groups, at::kLong), options_.device());
  pass_.positions = positions.positions.defined() ? upload(positions.positions, options_.device())
                                                  : at::arange(pass_.tokens, longs()).unsqueeze(0);
}

void KvCache::begin_piece(const PrefixPiece& piece) {
  reserve(piece.group + 1, piece.whole, 0);
  const std::int64_t end = piece.begin + piece.count;
  pass_ = {.is_prefill = true,
           .places = {piece.group},
           .counts = {piece.count},
           .next = piece.given.next.empty() ? std::vector<std::int64_t>{end} : piece.given.next,
           .whole = {piece.whole},
           .begin = piece.begin,
           .tokens = piece.count};
  pass_.index = upload(at::tensor(pass_.places, at::kLong), options_.device());
  pass_.positions = piece.given.positions.defined()
                        ? upload(piece.given.positions, options_.device())
                        : at::arange(piece.begin, end, longs()).unsqueeze(0);
}

at::Tensor KvCache::begin_extend(const std::vector<std::int64_t>& rows,
                                 const std::vector<std::int64_t>& counts, const at::Tensor& ids) {
  pass_ = {.places = rows, .counts = counts, .tokens = largest(counts)};
  std::vector<std::int64_t> begins;
  for (const std::int64_t row : rows) {
    begins.push_back(next_position(row));
    pass_.tail_tokens = std::max(pass_.tail_tokens, tail_length(row) + pass_.tokens);
  }
  reserve(0, 0, pass_.tail_tokens);
  if (!can_attend_to_cache(options_, pass_.tokens, shape_.head_dim)) {
    return lay_out_grid(begins, ids);
  }
  pass_.positions = at::tensor(begins, at::kLong).unsqueeze(1) + at::arange(pass_.tokens);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t group = rows[i] / rows_per_group_;
    pass_.new_tokens.push_back({.group = group,
                                .row = rows[i],
                                .prefix = seen_prefix(rows[i]),
                                .tail = tail_length(rows[i]),
                                .count = counts[i]});
  }
  return ids;
}

at::Tensor KvCache::begin_step(const std::vector<std::int64_t>& rows,
                               const std::vector<std::int64_t>& ids) {
  if (!can_step()) {
    return begin_extend(rows, std::vector<std::int64_t>(rows.size(), 1),
                        at::tensor(ids, at::kLong).unsqueeze(1));
  }
  pass_ = {.is_step = true,
           .places = rows,
           .counts = std::vector<std::int64_t>(rows.size(), 1),
           .tokens = 1};
  std::int64_t longest = 0;
  for (const std::int64_t row : rows) longest = std::max(longest, tail_length(row));
  reserve(0, 0, longest + 1);
  pass_.first_group = rows.front() / rows_per_group_;
  pass_.groups = rows.back() / rows_per_group_ + 1 - pass_.first_group;
  pass_.is_whole_grid = std::ssize(rows) == pass_.groups * rows_per_group_;
  const StepRows next = next_step(rows);
  pass_.prefix_tokens = next.prefix_tokens;
  pass_.tail_tokens = next.tail_tokens;
  if (step_.hold(next, ids)) buffers_ = next_buffers();
  pass_.index = step_.rows();
  pass_.grid_index = step_.grid_rows();
  pass_.positions = step_.positions();
  pass_.offset = -1;
  pass_.offsets = step_.offsets();
  return step_.ids();
}

StepRows KvCache::next_step(const std::vector<std::int64_t>& rows) const {
  const std::int64_t first_row = pass_.first_group * rows_per_group_;
  const std::int64_t grid_size = pass_.groups * rows_per_group_;
  StepRows step{.rows = rows};
  // A row that takes no part sees its prefix and one key, so that its softmax isn't empty.
  step.last.assign(static_cast<std::size_t>(grid_size), 0);
  for (const std::int64_t row : rows) {
    step.grid_rows.push_back(row - first_row);
    step.positions.push_back(next_position(row));
    step.offsets.push_back(tail_length(row));
    step.last[static_cast<std::size_t>(row - first_row)] = tail_length(row);
  }
  for (std::int64_t row = first_row; row < first_row + grid_size; ++row) {
    step.prefixes.push_back(seen_prefix(row));
  }
  const std::int64_t pieces = (largest(step.prefixes) + kPrefixPiece - 1) / kPrefixPiece;
  step.prefix_tokens = std::min(std::max<std::int64_t>(pieces, 1) * kPrefixPiece, prefix_capacity_);
  const auto tail = static_cast<std::uint64_t>(largest(step.offsets) + 1);
  step.tail_tokens = std::min(
      std::max<std::int64_t>(static_cast<std::int64_t>(std::bit_ceil(tail)), 32), tail_capacity_);
  return step;
}

StepShape KvCache::step_shape() const {
  return {.buffers = buffers_,
          .rows = std::ssize(pass_.places),
          .first_group = pass_.first_group,
          .groups = pass_.groups,
          .prefix_tokens = pass_.prefix_tokens,
          .tail_tokens = pass_.tail_tokens};
}

// `begins`: positions of the rows' first new tokens.
at::Tensor KvCache::lay_out_grid(const std::vector<std::int64_t>& begins, const at::Tensor& ids) {
  const std::vector<std::int64_t>& rows = pass_.places;
  pass_.first_group = rows.front() / rows_per_group_;
  pass_.groups = rows.back() / rows_per_group_ + 1 - pass_.first_group;
  const std::int64_t first_row = pass_.first_group * rows_per_group_;
  const std::int64_t grid_size = pass_.groups * rows_per_group_;
  pass_.is_whole_grid = std::ssize(rows) == grid_size;

  std::vector<std::int64_t> grid_rows, offsets, prefixes;
  std::vector<std::int64_t> tails(static_cast<std::size_t>(grid_size), 0);
  for (const std::int64_t row : rows) {
    grid_rows.push_back(row - first_row);
    offsets.push_back(tail_length(row));
    tails[static_cast<std::size_t>(row - first_row)] = tail_length(row);
  }
  for (std::int64_t row = first_row; row < first_row + grid_size; ++row) {
    prefixes.push_back(seen_prefix(row));
  }
  pass_.prefix_tokens = std::max<std::int64_t>(largest(prefixes), 1);
  const auto is_same = [](const std::vector<std::int64_t>& values) {
    return std::ranges::adjacent_find(values, std::not_equal_to()) == values.end();
  };
  pass_.offset = is_same(offsets) ? offsets.front() : -1;

  const std::vector<at::Tensor> there = upload_lists(
      {rows, grid_rows, begins, offsets, prefixes, tails, list_of(ids)}, options_.device());
  pass_.index = there[0];
  pass_.grid_index = there[1];
  pass_.positions = there[2].unsqueeze(1);
  pass_.offsets = there[3].unsqueeze(1);
  if (pass_.tokens > 1) {
    const at::Tensor later = at::arange(pass_.tokens, longs());
    pass_.positions = pass_.positions + later;
    pass_.offsets = pass_.offsets + later;
  }
  const bool sees_all = pass_.tokens == 1 && pass_.is_whole_grid && pass_.offset >= 0 &&
                        prefixes.front() == pass_.prefix_tokens && is_same(prefixes);
  if (!sees_all) make_extend_mask(there[4], there[5]);
  return ids.defined() ? there[6].view(ids.sizes()) : ids;
}

// Which keys a query may not see: what lies behind the prefix that it sees [n·R], and tokens of its
// tail [n·R] that come after it. Rows of the grid that take no part see nothing real and are never
// read.
void KvCache::make_extend_mask(const at::Tensor& prefixes, const at::Tensor& tails) {
  const std::vector<std::int64_t> grid = {pass_.groups, rows_per_group_, 1, 1};
  const at::Tensor in_prefix = at::arange(pass_.prefix_tokens, longs()).ge(prefixes.view(grid));
  at::Tensor query = tails.view(grid);
  if (pass_.tokens > 1) query = query + at::arange(pass_.tokens, longs()).view({1, 1, -1, 1});
  const at::Tensor in_tail = at::arange(pass_.tail_tokens, longs()).gt(query);
  const std::vector<std::int64_t> first = {pass_.groups, rows_per_group_, pass_.tokens,
                                           pass_.prefix_tokens};
  pass_.is_hidden = at::cat({in_prefix.expand(first), in_tail}, -1);
}

// Of its full shape and contiguous, as the softmax wants it.
void KvCache::make_step_mask(std::int64_t query_heads) {
  const at::Tensor keys = step_.keys(), last = step_.last();
  const std::int64_t kv = shape_.kv_heads;
  const std::vector<std::int64_t> full = {keys.size(0), kv, query_heads / kv, keys.size(3)};
  pass_.is_hidden_in_step = at::empty(full, options_.dtype(at::kBool));
  at::gt_out(pass_.is_hidden_in_step, keys.expand(full), last.expand(full));
}

at::Tensor KvCache::attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v, at::ScalarType product_dtype) {
  CachedLayer& held = layers_.at(static_cast<std::size_t>(layer));
  if (pass_.is_prefill) return attend_prompts(held, q, k, v, product_dtype);
  if (!pass_.new_tokens.empty()) return cached_attention(q, k, v, held, pass_.new_tokens);
  return attend_rows(held, q, k, v);
}

at::Tensor KvCache::attend_prompts(CachedLayer& layer, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, at::ScalarType product_dtype) {
  const auto store = [&](const at::Tensor& prefixes, const at::Tensor& rows) {
    const at::Tensor held = encode_rows(rows, held_);
    prefixes.narrow(2, pass_.begin, pass_.tokens).index_copy_(0, pass_.index, held);
    if (pass_.begin == 0) return decode_rows_of(held);
    return decode_rows_of(
        prefixes.narrow(0, pass_.places[0], 1).narrow(2, 0, pass_.begin + pass_.tokens));
  };
  const at::Tensor keys = store(layer.prefix_k, k), values = store(layer.prefix_v, v);
  // Padding is on the right, where no real token looks.
  return grouped_attention(q, keys, values, {}, /*is_causal=*/pass_.tokens > 1, product_dtype);
}

at::Tensor KvCache::attend_rows(CachedLayer& layer, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v) {
  store_tails(layer, k, v);
  if (pass_.is_step && !pass_.is_hidden_in_step.defined()) make_step_mask(q.size(1));
  if (pass_.is_whole_grid) return attend_grid(layer, q);
  at::Tensor grid =
      at::zeros({pass_.groups * rows_per_group_, q.size(1), q.size(2), q.size(3)}, q.options());
  grid.index_copy_(0, pass_.grid_index, q);
  return attend_grid(layer, grid).index_select(0, pass_.grid_index);
}

// What is held as it is computed is itself.
at::Tensor KvCache::decode_rows_of(const at::Tensor& held) const {
  return held_ == options_.dtype() ? held : decode_rows(held, shape_.head_dim);
}

void KvCache::store_tails(CachedLayer& layer, const at::Tensor& computed_k,
                          const at::Tensor& computed_v) {
  const at::Tensor k = encode_rows(computed_k, held_), v = encode_rows(computed_v, held_);
  if (pass_.offset >= 0) {
    layer.tail_k.narrow(2, pass_.offset, pass_.tokens).index_copy_(0, pass_.index, k);
    layer.tail_v.narrow(2, pass_.offset, pass_.tokens).index_copy_(0, pass_.index, v);
    return;
  }
  // [rows, K, T, D] seen as [rows, T, K, D], of which each row gets its tokens at its offset.
  const at::Tensor at_rows = pass_.index.unsqueeze(1);
  layer.tail_k.transpose(1, 2).index_put_({at_rows, pass_.offsets}, k.transpose(1, 2));
  layer.tail_v.transpose(1, 2).index_put_({at_rows, pass_.offsets}, v.transpose(1, 2));
}

at::Tensor KvCache::attend_grid(const CachedLayer& layer, const at::Tensor& q) const {
  const std::int64_t n = pass_.groups, r = rows_per_group_;
  const auto prefix_of = [&](const at::Tensor& t) {
    return decode_rows_of(t.narrow(0, pass_.first_group, n).narrow(2, 0, pass_.prefix_tokens));
  };
  const auto tail_of = [&](const at::Tensor& t) {
    return decode_rows_of(
        t.narrow(0, pass_.first_group * r, n * r).narrow(2, 0, pass_.tail_tokens));
  };
  return grid_attention(q,
                        {.prefix_k = prefix_of(layer.prefix_k),
                         .prefix_v = prefix_of(layer.prefix_v),
                         .tail_k = tail_of(layer.tail_k),
                         .tail_v = tail_of(layer.tail_v)},
                        {.is_hidden = pass_.is_hidden, .in_step = pass_.is_hidden_in_step});
}

void KvCache::store_inputs(const at::Tensor& embeddings) {
  CachedLayer& inputs = layers_.back();
  const at::Tensor given = embeddings.unsqueeze(1);  // [B, 1, T, C]
  if (pass_.is_prefill) {
    inputs.prefix_k.narrow(2, pass_.begin, pass_.tokens).index_copy_(0, pass_.index, given);
    return;
  }
  for (std::size_t i = 0; i < pass_.places.size(); ++i) {
    const std::int64_t row = pass_.places[i], count = pass_.counts[i];
    inputs.tail_k[row]
        .narrow(1, tail_length(row), count)
        .copy_(given[static_cast<std::int64_t>(i)].narrow(1, 0, count));
  }
}

at::Tensor KvCache::stored_inputs(std::int64_t row) const {
  const CachedLayer& inputs = layers_.back();
  return at::cat({inputs.prefix_k[row / rows_per_group_][0].narrow(0, 0, seen_prefix(row)),
                  inputs.tail_k[row][0].narrow(0, 0, tail_length(row))});
}

void KvCache::begin_again(std::int64_t row) {
  clear_tail(row);
  is_alone_.at(static_cast<std::size_t>(row)) = true;
}

void KvCache::end_step() {
  step_.count();
  for (const std::int64_t row : pass_.places) ++tail_lengths_.at(static_cast<std::size_t>(row));
}

void KvCache::end_pass() {
  if (pass_.is_step) return step_.advance();
  for (std::size_t i = 0; i < pass_.places.size(); ++i) {
    const auto place = static_cast<std::size_t>(pass_.places[i]);
    if (!pass_.is_prefill) {
      tail_lengths_[place] += pass_.counts[i];
      continue;
    }
    prefix_lengths_[place] = pass_.begin + pass_.counts[i];
    next_positions_[place] = pass_.next[i];
    empty_rows(pass_.places[i]);
  }
}

void KvCache::empty_rows(std::int64_t group) {
  for (std::int64_t r = 0; r < rows_per_group_; ++r) clear_tail(group * rows_per_group_ + r);
}

}  // namespace vlm

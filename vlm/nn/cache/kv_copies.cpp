// What a KvCache copies: tails between rows, groups, and the beginnings of prompts.
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "vlm/nn/kv_cache.h"
#include "vlm/nn/upload.h"

namespace vlm {
namespace {

std::int64_t bytes_in(const std::vector<at::Tensor>& tensors) {
  std::int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<std::int64_t>(tensor.nbytes());
  return bytes;
}

}  // namespace

std::int64_t KvPrefix::bytes() const {
  return bytes_in(k) + bytes_in(v);
}

std::int64_t KvCache::bytes_of(std::int64_t groups, std::int64_t prefix_tokens,
                               std::int64_t tail_tokens) const {
  const std::int64_t tokens = groups * (prefix_tokens + rows_per_group_ * tail_tokens);
  return tokens * (kv_token_bytes(shape_, held_) +
                   shape_.input_width * static_cast<std::int64_t>(options_.dtype().itemsize()));
}

void KvCache::copy_tails(const std::vector<std::int64_t>& from,
                         const std::vector<std::int64_t>& to) {
  std::int64_t tokens = 0;
  std::vector<std::int64_t> sources, targets, lengths;
  std::vector<bool> alone;
  for (std::size_t i = 0; i < from.size(); ++i) {
    lengths.push_back(tail_length(from[i]));
    alone.push_back(is_alone_.at(static_cast<std::size_t>(from[i])));
    if (from[i] == to[i]) continue;
    sources.push_back(from[i]);
    targets.push_back(to[i]);
    tokens = std::max(tokens, lengths.back());
  }
  for (std::size_t i = 0; i < to.size(); ++i) {
    tail_lengths_.at(static_cast<std::size_t>(to[i])) = lengths[i];
    is_alone_.at(static_cast<std::size_t>(to[i])) = alone[i];
  }
  if (tokens == 0) return;
  const at::Tensor source = upload(at::tensor(sources, at::kLong), options_.device());
  const at::Tensor target = upload(at::tensor(targets, at::kLong), options_.device());
  for (CachedLayer& layer : layers_) {
    for (at::Tensor* tails : {&layer.tail_k, &layer.tail_v}) {
      at::Tensor used = tails->narrow(2, 0, tokens);
      used.index_copy_(0, target, used.index_select(0, source));
    }
  }
}

void KvCache::move_group(std::int64_t from, std::int64_t to) {
  const std::int64_t prefix = prefix_length(from);
  std::int64_t tail = 0;
  for (std::int64_t r = 0; r < rows_per_group_; ++r) {
    const std::int64_t source = from * rows_per_group_ + r;
    const auto target = static_cast<std::size_t>(to * rows_per_group_ + r);
    tail_lengths_.at(target) = tail_length(source);
    is_alone_.at(target) = is_alone_.at(static_cast<std::size_t>(source));
    tail = std::max(tail, tail_length(source));
  }
  prefix_lengths_.at(static_cast<std::size_t>(to)) = prefix;
  next_positions_.at(static_cast<std::size_t>(to)) =
      next_positions_.at(static_cast<std::size_t>(from));
  const auto move = [](at::Tensor& t, std::int64_t source, std::int64_t target, std::int64_t count,
                       std::int64_t tokens) {
    if (tokens == 0) return;
    t.narrow(0, target, count)
        .narrow(2, 0, tokens)
        .copy_(t.narrow(0, source, count).narrow(2, 0, tokens));
  };
  const std::int64_t r = rows_per_group_;
  for (CachedLayer& layer : layers_) {
    move(layer.prefix_k, from, to, 1, prefix);
    move(layer.prefix_v, from, to, 1, prefix);
    move(layer.tail_k, from * r, to * r, r, tail);
    move(layer.tail_v, from * r, to * r, r, tail);
  }
}

void KvCache::copy_prefix(std::int64_t from, const std::vector<std::int64_t>& others) {
  const std::int64_t tokens = prefix_length(from);
  for (const std::int64_t other : others) {
    reserve(other + 1, 0, 0);
    for (CachedLayer& layer : layers_) {
      for (at::Tensor* prefixes : {&layer.prefix_k, &layer.prefix_v}) {
        prefixes->select(0, other)
            .narrow(1, 0, tokens)
            .copy_(prefixes->select(0, from).narrow(1, 0, tokens));
      }
    }
    prefix_lengths_.at(static_cast<std::size_t>(other)) = tokens;
    next_positions_.at(static_cast<std::size_t>(other)) =
        next_positions_.at(static_cast<std::size_t>(from));
    empty_rows(other);
  }
}

KvPrefix KvCache::take_out(std::int64_t row, std::int64_t tokens) const {
  const std::int64_t group = row / rows_per_group_;
  const std::int64_t of_prefix = std::min(tokens, prefix_length(group)),
                     of_tail = tokens - of_prefix;
  const auto joined = [&](const at::Tensor& prefixes, const at::Tensor& tails) {
    return at::cat({prefixes.select(0, group).narrow(1, 0, of_prefix),
                    tails.select(0, row).narrow(1, 0, of_tail)},
                   1);
  };
  KvPrefix taken{.tokens = tokens};
  for (const CachedLayer& layer : layers_) {
    taken.k.push_back(joined(layer.prefix_k, layer.tail_k));
    taken.v.push_back(joined(layer.prefix_v, layer.tail_v));
  }
  return taken;
}

void KvCache::put_in(std::int64_t group, const KvPrefix& prefix, std::int64_t tokens,
                     std::int64_t next) {
  reserve(group + 1, tokens, 0);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]
        .prefix_k.select(0, group)
        .narrow(1, 0, tokens)
        .copy_(prefix.k[i].narrow(1, 0, tokens));
    layers_[i]
        .prefix_v.select(0, group)
        .narrow(1, 0, tokens)
        .copy_(prefix.v[i].narrow(1, 0, tokens));
  }
  prefix_lengths_.at(static_cast<std::size_t>(group)) = tokens;
  next_positions_.at(static_cast<std::size_t>(group)) = next;
  empty_rows(group);
}

}  // namespace vlm

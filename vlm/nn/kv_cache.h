// Keys and values of the tokens seen so far, laid out so that answers can share a prompt.
//
//   group g ── prefix [K, P, D]   the prompt's keys and values, kept once
//      ├─ row g·R     ── tail [K, T, D]   what this answer adds: its question, its tokens
//      ├─ row g·R + 1 ── tail
//      └─ …            R rows a group: beams, samples, questions about one picture, choices
//
// Every group and row has a length of its own, so sequences of different lengths decode together
// without padding tokens. A forward pass has three steps: begin_prefill (new prompts) or
// begin_extend (more tokens for some rows); then each layer calls attend, which stores the new keys
// and values and computes the attention; then end_pass adds the new tokens to the lengths. Buffers
// grow when a pass needs more. A pass that throws before its end may be begun again.
//
// A prompt may also come in pieces (begin_piece), and the beginning of one may be copied: to other
// groups, or out of the cache and in again (cache/kv_copies.cpp).
//
// On a GPU a pass of one token a row may also be a step (begin_step), whose operators, shapes and
// addresses stay the same while the same rows go on: lengths of the prefix and of the tails are
// rounded up, and masked. Such a step can be recorded (gpu/device_graph.h).
//
// A row may stop seeing its group's prefix (begin_again) and hold its whole sequence in its tail:
// for models whose keys all change when a sequence grows beyond a length.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <compare>
#include <cstdint>
#include <vector>

#include "vlm/nn/cpu/cached_attention.h"
#include "vlm/nn/gpu/step_state.h"

namespace vlm {

struct KvCacheShape {
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;  // K
  std::int64_t head_dim = 0;  // D
  // Numbers of an embedded token, for models that may have to compute a sequence again:
  // store_inputs keeps them. 0: nothing is kept.
  std::int64_t input_width = 0;
};

// Positions of several prompts' tokens.
struct PromptPositions {
  at::Tensor positions;            // [3, B, T] int64 by time, row and column; undefined: 0, 1, …
  std::vector<std::int64_t> next;  // of each prompt, that of the token behind it; empty: its length
};

// How keys and values are held: as they are computed, or on a CPU, where that is float32, in fewer
// bits (cpu/kv_rows.h). A pass sees those of its own tokens as they are held, too, so a prompt may
// come in one pass or in several.
enum class KvStorage { kComputed, kBfloat16, kInt8 };

// Of one token's keys and values in all layers, held in this type (kChar: in 8 bits).
std::int64_t kv_token_bytes(const KvCacheShape& shape, at::ScalarType held);

// Some tokens of a prompt that comes in pieces.
struct PrefixPiece {
  std::int64_t group = 0;
  std::int64_t begin = 0;      // tokens that are in the cache already
  std::int64_t count = 0;      // of the piece
  std::int64_t whole = 0;      // of the prompt
  PromptPositions given = {};  // of the piece; `next` is that of the token behind it
};

// Keys and values of a sequence's first tokens, outside of a cache.
struct KvPrefix {
  std::vector<at::Tensor> k, v;  // of each layer, [K, T, D]
  std::int64_t tokens = 0;
  std::int64_t bytes() const;
};

// What decides on the operators and addresses of a step.
struct StepShape {
  std::uint64_t buffers = 0;  // of this process; others after the cache has grown
  std::int64_t rows = 0, first_group = 0, groups = 0;
  std::int64_t prefix_tokens = 0, tail_tokens = 0;

  auto operator<=>(const StepShape&) const = default;
};

class KvCache {
 public:
  // `options` give device and dtype of keys and values as they are computed. Anything but kComputed
  // is for float32 on a CPU.
  KvCache(const KvCacheShape& shape, std::int64_t rows_per_group, const at::TensorOptions& options,
          KvStorage storage = KvStorage::kComputed);

  // The next pass brings new prompts [B, T, C], padded on the right: prompt i, lengths[i] tokens
  // long, becomes the prefix of groups[i], whose rows are emptied. `positions` are those of the
  // prompts' tokens, where they aren't counted.
  void begin_prefill(const std::vector<std::int64_t>& groups,
                     const std::vector<std::int64_t>& lengths, const PromptPositions& positions);
  void begin_prefill(const std::vector<std::int64_t>& groups,
                     const std::vector<std::int64_t>& lengths) {
    begin_prefill(groups, lengths, {});
  }

  // The next pass brings a piece of one prompt [1, T, C]. The first of them empties the group's
  // rows.
  void begin_piece(const PrefixPiece& piece);

  // The next pass adds counts[i] tokens at the end of rows[i], padded on the right to the longest,
  // T. `rows` is ascending. `ids` [B, T] int64 of a CPU come back on the cache's device: a GPU gets
  // them in one upload with the numbers of the pass.
  at::Tensor begin_extend(const std::vector<std::int64_t>& rows,
                          const std::vector<std::int64_t>& counts, const at::Tensor& ids = {});

  // The next pass adds one token behind each of `rows`, ascending: a step where that can be, else
  // as begin_extend. → ids [B, 1] on the cache's device.
  at::Tensor begin_step(const std::vector<std::int64_t>& rows,
                        const std::vector<std::int64_t>& ids);
  // Of the pass, where it is a step: its ids, and where its answer goes; null otherwise.
  StepState* step() { return pass_.is_step ? &step_ : nullptr; }
  StepShape step_shape() const;
  // Behind a step, whether it ran or was replayed: adds its tokens to the lengths.
  void end_step();

  // Positions of the pass's tokens, [B, T] int64: what is given for their prompt, and counted on
  // from there. [3, B, T] where a prompt's are given.
  const at::Tensor& positions() const { return pass_.positions; }

  // Stores k and v [B, K, T, D] of the pass's tokens, and computes the attention of q [B, H, T, D]
  // (after the rotary embedding) over the tokens of its row up to its own position. → [B, H, T, D];
  // the values at padding are arbitrary. `product_dtype` is used for prompts only (attention.h).
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, at::ScalarType product_dtype = at::kFloat);

  // A step's tokens are added to the lengths by end_step.
  void end_pass();

  // What the pass brings, as begin_extend was told: rows (of a prefill: groups), and tokens of
  // each.
  const std::vector<std::int64_t>& pass_places() const { return pass_.places; }
  const std::vector<std::int64_t>& pass_counts() const { return pass_.counts; }
  bool is_prefill() const { return pass_.is_prefill; }
  // Of a prefill: tokens of each whole prompt, of which the pass may bring a piece.
  const std::vector<std::int64_t>& prompt_lengths() const { return pass_.whole; }
  // Tokens of a row's sequence so far, without those of the pass.
  std::int64_t length(std::int64_t row) const { return seen_prefix(row) + tail_length(row); }

  // Keeps the embedded tokens [B, T, C] of the pass, and gives all that were kept of a row [S, C].
  void store_inputs(const at::Tensor& embeddings);
  at::Tensor stored_inputs(std::int64_t row) const;
  // Empties a row and hides its group's prefix from it, until its tail is cleared.
  void begin_again(std::int64_t row);

  // Row to[i] gets the tail that row from[i] had before the call. All rows belong to one group.
  void copy_tails(const std::vector<std::int64_t>& from, const std::vector<std::int64_t>& to);
  // Only the first tokens of a row's tail stay.
  void cut_tail(std::int64_t row, std::int64_t tokens) {
    std::int64_t& length = tail_lengths_.at(static_cast<std::size_t>(row));
    length = std::min(length, tokens);
  }
  void clear_tail(std::int64_t row) {
    tail_lengths_.at(static_cast<std::size_t>(row)) = 0;
    is_alone_.at(static_cast<std::size_t>(row)) = false;
  }
  // Group `to` becomes what group `from` is.
  void move_group(std::int64_t from, std::int64_t to);
  // The others get the prefix of `from`, and empty rows.
  void copy_prefix(std::int64_t from, const std::vector<std::int64_t>& others);
  // The first tokens of a row that sees its prefix; and a group that begins with the first tokens
  // of what was taken out. Behind them comes position `next`.
  KvPrefix take_out(std::int64_t row, std::int64_t tokens) const;
  void put_in(std::int64_t group, const KvPrefix& prefix, std::int64_t tokens, std::int64_t next);

  // Makes room before it is needed. When memory runs out, what is there stays usable.
  void reserve(std::int64_t groups, std::int64_t prefix_tokens, std::int64_t tail_tokens);
  // Tails that grow leave no room for more than so many tokens in advance; 0: no bound.
  void bound_tails(std::int64_t tokens) { most_tail_ = tokens; }
  std::int64_t prefix_capacity() const { return prefix_capacity_; }
  std::int64_t tail_capacity() const { return tail_capacity_; }
  std::int64_t groups() const { return static_cast<std::int64_t>(prefix_lengths_.size()); }
  // Of its buffers, as they are, and as they would be for so many groups and tokens.
  std::int64_t bytes() const { return bytes_of(groups(), prefix_capacity_, tail_capacity_); }
  std::int64_t bytes_of(std::int64_t groups, std::int64_t prefix_tokens,
                        std::int64_t tail_tokens) const;

  std::int64_t rows_per_group() const { return rows_per_group_; }
  std::int64_t prefix_length(std::int64_t group) const {
    return prefix_lengths_.at(static_cast<std::size_t>(group));
  }
  std::int64_t tail_length(std::int64_t row) const {
    return tail_lengths_.at(static_cast<std::size_t>(row));
  }

 private:
  at::TensorOptions longs() const { return options_.dtype(at::kLong); }

  // What the layers of one forward pass share.
  struct Pass {
    bool is_prefill = false;
    bool is_step = false;
    std::vector<std::int64_t> places;  // groups of a prefill, rows of an extension
    std::vector<std::int64_t> counts;  // tokens of each
    std::vector<std::int64_t> next;    // of a prefill, the positions behind the prompts
    std::vector<std::int64_t> whole;   // of a prefill, tokens of the prompts
    std::int64_t begin = 0;            // of a piece of a prompt: tokens that are there
    std::int64_t tokens = 0;           // T, the largest count
    at::Tensor positions;              // [B, T]
    at::Tensor index;                  // [B] places
    // Of an extension by a few tokens on a CPU; empty otherwise.
    std::vector<CachedTokens> new_tokens;
    // Of other extensions: computed as a grid of all rows of groups [first_group, first_group +
    // groups).
    std::int64_t first_group = 0, groups = 0;
    std::int64_t prefix_tokens = 0, tail_tokens = 0;  // longest prefix and (new) tail of the grid
    std::int64_t offset = -1;    // where the tokens go in every tail; -1: not the same in all
    at::Tensor offsets;          // [B, T] where each token goes in its row's tail
    bool is_whole_grid = false;  // the pass has every row of the grid
    at::Tensor grid_index;       // [B] of the grid's rows
    at::Tensor is_hidden;        // [n, R, T, prefix_tokens + tail_tokens] bool; undefined: all seen
    // Of a step [n·R, K, H / K, P + T]: made by the first layer.
    at::Tensor is_hidden_in_step;
  };

  // Of the row's next token.
  std::int64_t next_position(std::int64_t row) const {
    const bool is_alone = is_alone_.at(static_cast<std::size_t>(row));
    const auto group = static_cast<std::size_t>(row / rows_per_group_);
    return (is_alone ? 0 : next_positions_.at(group)) + tail_length(row);
  }
  std::int64_t seen_prefix(std::int64_t row) const {
    return is_alone_.at(static_cast<std::size_t>(row)) ? 0 : prefix_length(row / rows_per_group_);
  }
  void empty_rows(std::int64_t group);
  at::Tensor lay_out_grid(const std::vector<std::int64_t>& begins, const at::Tensor& ids);
  bool can_step() const { return !options_.device().is_cpu() && shape_.input_width == 0; }
  StepRows next_step(const std::vector<std::int64_t>& rows) const;
  void make_step_mask(std::int64_t query_heads);
  void make_extend_mask(const at::Tensor& prefixes, const at::Tensor& tails);
  at::Tensor attend_prompts(CachedLayer& layer, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, at::ScalarType product_dtype);
  at::Tensor attend_rows(CachedLayer& layer, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v);
  at::Tensor decode_rows_of(const at::Tensor& held) const;
  void store_tails(CachedLayer& layer, const at::Tensor& computed_k, const at::Tensor& computed_v);
  at::Tensor attend_grid(const CachedLayer& layer, const at::Tensor& q) const;

  KvCacheShape shape_;
  std::int64_t rows_per_group_;  // R
  at::TensorOptions options_;
  at::ScalarType held_;                       // of the buffers
  std::vector<CachedLayer> layers_;           // zeros where nothing was stored; inputs come last
  std::vector<std::int64_t> prefix_lengths_;  // [G]
  std::vector<std::int64_t> next_positions_;  // [G] behind the prefix
  std::vector<std::int64_t> tail_lengths_;    // [G·R]
  std::vector<bool> is_alone_;                // [G·R] rows that don't see their prefix
  std::int64_t prefix_capacity_ = 0, tail_capacity_ = 0, most_tail_ = 0;
  std::uint64_t buffers_ = 0;
  StepState step_;
  Pass pass_;
};

}  // namespace vlm

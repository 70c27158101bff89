// What a prompt says of its tokens beside their ids: where its media stand, and the positions that
// the rotary embedding turns by. Processors decide it, models check it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// Tokens of the prompt, from the first to behind the last that stands for a medium.
struct MediumSpan {
  std::int64_t begin = 0, end = 0;
};

struct PromptLayout {
  std::vector<MediumSpan> media;  // one a medium, in their order
  // [3, T] int64 on the CPU, by time, row and column; text has the same three. Undefined: 0, 1, …
  at::Tensor positions;
  std::int64_t next_position = 0;  // of the token behind the prompt, where `positions` are given
  // False where what a medium's tokens are depends on the text behind them.
  bool can_share_prefix = true;

  // The medium that token t stands for; -1: text.
  std::int64_t medium_at(std::int64_t t) const;
  // Behind the last medium; 0 without media.
  std::int64_t media_end() const { return media.empty() ? 0 : media.back().end; }
  // Whether other prompts that begin with the same `tokens` ids may use what was computed for them.
  bool can_share(std::int64_t tokens) const { return can_share_prefix && media_end() <= tokens; }
  // The position of token `tokens` ≥ media_end() of a prompt of `length` tokens, or of the first
  // one behind it.
  std::int64_t position_of(std::int64_t tokens, std::int64_t length) const;
  // Takes away the tokens from `length` on, which are text.
  void cut(std::int64_t length);
};

// Finds the spans in the ids of a prompt: medium i has counts[i] ids of `media_ids`. Throws Error
// naming `where` when there are more or fewer.
std::vector<MediumSpan> find_media(const std::vector<std::int64_t>& ids,
                                   const std::vector<std::int64_t>& media_ids,
                                   const std::vector<std::int64_t>& counts);

// Positions of several rows in one tensor, for batches: rows of [3, T], shorter ones and those
// without positions (then 0, 1, …) among them → [3, B, T]. Undefined where no row has any.
struct RowPositions {
  at::Tensor positions;  // [3, T]; undefined: 0, 1, …
  std::int64_t length = 0;
};
at::Tensor stack_positions(const std::vector<RowPositions>& rows);

}  // namespace vlm

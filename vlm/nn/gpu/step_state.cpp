#include "vlm/nn/gpu/step_state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <bit>
#include <limits>
#include <utility>

namespace vlm {
namespace {

using Integers = std::vector<std::int64_t>;

void append(Integers& all, const Integers& more) {
  all.insert(all.end(), more.begin(), more.end());
}

// Into device memory that is there, through pinned memory: the host doesn't wait.
void write(const at::Tensor& to, const Integers& numbers) {
  to.copy_(at::tensor(numbers, at::kLong).pin_memory(), /*non_blocking=*/true);
}

// For each row of the grid its keys of the prefix, then those of the tail.
Integers keys_of(const StepRows& rows) {
  Integers keys;
  for (const std::int64_t prefix : rows.prefixes) {
    for (std::int64_t i = 0; i < rows.prefix_tokens; ++i) {
      keys.push_back(i < prefix ? -1 : std::numeric_limits<std::int64_t>::max());
    }
    for (std::int64_t i = 0; i < rows.tail_tokens; ++i) keys.push_back(i);
  }
  return keys;
}

// The buffer: ids and room for as many numbers, rows, grid_rows, positions, offsets [B each], last
// [n·R], keys [n·R · (P + T)], then what advance adds to positions, offsets and last.
Integers lay_out(const StepRows& rows, const Integers& ids) {
  const std::size_t count = rows.rows.size();
  Integers all = ids;
  all.resize(2 * count, 0);
  for (const Integers* part :
       {&rows.rows, &rows.grid_rows, &rows.positions, &rows.offsets, &rows.last}) {
    append(all, *part);
  }
  append(all, keys_of(rows));
  append(all, Integers(2 * count, 1));
  Integers of_grid(rows.last.size(), 0);
  for (const std::int64_t row : rows.grid_rows) of_grid[static_cast<std::size_t>(row)] = 1;
  append(all, of_grid);
  return all;
}

}  // namespace

bool StepState::hold(const StepRows& rows, const Integers& ids) {
  if (rows == held_ && ids == ids_) return false;
  if (rows == held_) {
    ids_ = ids;
    write(part(0, 1), ids);
    return false;
  }
  held_ = rows;
  ids_ = ids;
  const Integers all = lay_out(rows, ids);
  const auto size = static_cast<std::int64_t>(all.size());
  const bool moves = !buffer_.defined() || buffer_.size(0) < size;
  if (moves) {
    const auto room = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(size)));
    buffer_ = at::empty({room}, longs_);
  }
  write(buffer_.narrow(0, 0, size), all);
  return moves;
}

at::Tensor StepState::last() const {
  return buffer_.narrow(0, grid_begin(), std::ssize(held_.last)).view({-1, 1, 1, 1});
}

at::Tensor StepState::keys() const {
  const std::int64_t grid = std::ssize(held_.last);
  const std::int64_t each = held_.prefix_tokens + held_.tail_tokens;
  return buffer_.narrow(0, grid_begin() + grid, grid * each).view({grid, 1, 1, each});
}

void StepState::advance() {
  const std::int64_t grid = std::ssize(held_.last);
  const std::int64_t keys = grid * (held_.prefix_tokens + held_.tail_tokens);
  const std::int64_t moving = 2 * row_count() + grid;
  buffer_.narrow(0, 4 * row_count(), moving)
      .add_(buffer_.narrow(0, grid_begin() + grid + keys, moving));
}

void StepState::count() {
  for (std::size_t i = 0; i < held_.rows.size(); ++i) {
    ++held_.positions[i];
    ++held_.offsets[i];
    ++held_.last[static_cast<std::size_t>(held_.grid_rows[i])];
  }
}

}  // namespace vlm

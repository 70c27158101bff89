// What a decode step needs to know of its rows, in the memory of a GPU. While the same rows go on,
// the step itself counts it on and writes the next ids there, so that nothing is uploaded and the
// step's operators, shapes and addresses are the same from token to token.
//
//   hold(rows, ids) ─► the step: ids() … positions() … advance() ─► count() … hold(rows, ids)
//
// Keys are compared with what a row may see by one number each: a key of the prefix has -1 where
// its row sees it, else more than any place; one of the tail has its place there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// Rows that take part, B, and the grid of rows [n·R] that they are computed in.
struct StepRows {
  std::vector<std::int64_t> rows;       // [B] of the cache
  std::vector<std::int64_t> grid_rows;  // [B] of the grid
  std::vector<std::int64_t> positions;  // [B] of the tokens to feed
  std::vector<std::int64_t> offsets;    // [B] their places in their rows' tails
  std::vector<std::int64_t> prefixes;   // [n·R] tokens that a row of the grid sees of its prefix
  std::vector<std::int64_t> last;       // [n·R] the last place of its tail that it sees
  std::int64_t prefix_tokens = 0;       // keys of the prefix, P
  std::int64_t tail_tokens = 0;         // keys of the tail, T

  bool operator==(const StepRows&) const = default;
};

class StepState {
 public:
  explicit StepState(const at::TensorOptions& longs) : longs_(longs) {}

  // Uploads what the device doesn't have: nothing, the ids, or all. True: it moved to a larger
  // buffer.
  bool hold(const StepRows& rows, const std::vector<std::int64_t>& ids);

  at::Tensor ids() const { return column(0); }         // [B, 1] int64
  at::Tensor answer() const { return part(0, 2); }     // [2·B]: the ids, room for B more numbers
  at::Tensor rows() const { return part(2, 1); }       // [B]
  at::Tensor grid_rows() const { return part(3, 1); }  // [B]
  at::Tensor positions() const { return column(4); }   // [B, 1]
  at::Tensor offsets() const { return column(5); }     // [B, 1]
  at::Tensor last() const;                             // [n·R, 1, 1, 1]
  at::Tensor keys() const;                             // [n·R, 1, 1, P + T]

  // The rows' next tokens, by one operator of the device.
  void advance();
  // The same of what the host knows, after a step, be it run or replayed.
  void count();
  // What the step has written into ids().
  void expect_ids(std::vector<std::int64_t> ids) { ids_ = std::move(ids); }

  const StepRows& held() const { return held_; }

 private:
  std::int64_t row_count() const { return std::ssize(held_.rows); }
  at::Tensor part(std::int64_t first, std::int64_t parts) const {
    return buffer_.narrow(0, first * row_count(), parts * row_count());
  }
  at::Tensor column(std::int64_t index) const { return part(index, 1).unsqueeze(1); }
  std::int64_t grid_begin() const { return 6 * row_count(); }

  at::TensorOptions longs_;
  at::Tensor buffer_;
  StepRows held_;
  std::vector<std::int64_t> ids_;  // that the device has; empty: unknown
};

}  // namespace vlm

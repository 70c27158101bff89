#include "vlm/nn/cpu/widened_blocks.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/few_rows.h"
#include "vlm/nn/cpu/onednn_linear.h"

namespace vlm {
namespace {

constexpr std::int64_t kBlockBytes = 4 << 20;  // of widened weights

// A buffer for widened weights that lives as long as the calling thread: asking the system for
// megabytes of fresh pages in every call costs as much as the conversion.
at::Tensor scratch(std::int64_t rows, std::int64_t k) {
  thread_local at::Tensor buffer;
  if (!buffer.defined() || buffer.numel() < rows * k) buffer = at::empty({rows * k}, at::kFloat);
  return buffer.narrow(0, 0, rows * k).view({rows, k});
}

}  // namespace

void over_widened_blocks(
    const NarrowMatrix& matrix,
    const std::function<void(const at::Tensor&, std::int64_t, std::int64_t)>& work) {
  const std::int64_t k = matrix.k, total = matrix.n;
  const std::int64_t step = std::clamp<std::int64_t>(kBlockBytes / 4 / k, 1, total);
  for (std::int64_t n = 0; n < total; n += step) {
    const std::int64_t count = std::min(step, total - n);
    const at::Tensor block = scratch(count, k);
    const std::int64_t rows = piece_rows(count * k, k);
    run_pieces(divide_up(count, rows), [&](std::int64_t i) {
      const std::int64_t begin = i * rows, end = std::min(begin + rows, count);
      matrix.widen(n + begin, end - begin, block.mutable_data_ptr<float>() + begin * k);
    });
    work(block, n, count);
  }
}

at::Tensor multiply_widened(const at::Tensor& x, const NarrowMatrix& matrix,
                            const at::Tensor& bias) {
  const bool is_onednn = prefers_onednn(x, x.size(0));
  at::Tensor y;
  over_widened_blocks(matrix, [&](const at::Tensor& block, std::int64_t first, std::int64_t count) {
    const at::Tensor added = bias.defined() ? bias.narrow(0, first, count) : bias;
    const at::Tensor product = is_onednn ? onednn_linear(x, block, added) : at::Tensor();
    if (is_onednn && count == matrix.n) {
      y = product;
      return;
    }
    if (!y.defined()) y = at::empty({x.size(0), matrix.n}, x.options());
    at::Tensor columns = y.narrow(1, first, count);
    if (is_onednn) {
      columns.copy_(product);
    } else if (added.defined()) {
      at::addmm_out(columns, added, x, block.t());
    } else {
      at::mm_out(columns, x, block.t());
    }
  });
  return y;
}

}  // namespace vlm

#include "vlm/nn/gpu/grid_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_masked_softmax.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <cmath>
#include <cstdint>

namespace vlm {
namespace {

// scale · a b, of [n, K, …] each: on a GPU by one operator. On a CPU by two: that one would round
// differently for different numbers of rows, and an answer depend on what is asked beside it.
at::Tensor scaled_scores(const at::Tensor& a, const at::Tensor& b, double scale) {
  if (a.is_cpu()) return at::matmul(a * scale, b);
  const at::Tensor unread = at::empty({1, 1, 1}, a.options());  // as beta is 0
  return at::baddbmm(unread, a.flatten(0, 1), b.flatten(0, 1), 0.0, scale)
      .unflatten(0, {a.size(0), a.size(1)});
}

// start + a b, with the same difference. On a GPU the memory of `start` may be written to.
at::Tensor add_product(const at::Tensor& start, const at::Tensor& a, const at::Tensor& b) {
  if (a.is_cpu()) return start + at::matmul(a, b);
  const at::Tensor sum = start.contiguous();
  sum.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1));
  return sum;
}

// scores [n·R, K, H / K · T, P + S]
at::Tensor softmax_of_seen(const at::Tensor& scores, const GridMask& mask, std::int64_t tokens) {
  if (mask.in_step.defined()) return at::_masked_softmax(scores, mask.in_step, -1);
  if (mask.is_hidden.defined()) {
    const std::int64_t rows = scores.size(0), kv = scores.size(1), heads = scores.size(2) / tokens;
    const at::Tensor hidden = mask.is_hidden.reshape({rows, 1, 1, tokens, scores.size(-1)});
    scores.view({rows, kv, heads, tokens, -1}).masked_fill_(hidden, -1e30);
  }
  return scores.softmax(-1);
}

}  // namespace

at::Tensor grid_attention(const at::Tensor& q, const GridKeys& keys, const GridMask& mask) {
  const std::int64_t n = keys.prefix_k.size(0), r = q.size(0) / n, kv = keys.prefix_k.size(1);
  const std::int64_t tokens = q.size(2), d = q.size(3), per_kv = q.size(1) / kv * tokens;
  // Rows side by side for the prefix: [n·R, K, …] → [n, K, R·…]
  const auto by_group = [&](const at::Tensor& t) {
    return t.reshape({n, r, kv, per_kv, t.size(-1)})
        .transpose(1, 2)
        .reshape({n, kv, r * per_kv, t.size(-1)});
  };
  const auto by_row = [&](const at::Tensor& t) {
    return t.reshape({n, kv, r, per_kv, t.size(-1)})
        .transpose(1, 2)
        .reshape({n * r, kv, per_kv, t.size(-1)});
  };
  const at::Tensor queries = q.reshape({n * r, kv, per_kv, d});
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  const at::Tensor scores =
      at::cat({by_row(scaled_scores(by_group(queries), keys.prefix_k.transpose(-1, -2), scale)),
               scaled_scores(queries, keys.tail_k.transpose(-1, -2), scale)},
              -1);  // [n·R, K, heads·T, P + S]
  const at::Tensor weights = softmax_of_seen(scores, mask, tokens);
  const std::int64_t prefix = keys.prefix_k.size(2), tail = keys.tail_k.size(2);
  const at::Tensor from_prefix =
      by_row(at::matmul(by_group(weights.narrow(-1, 0, prefix)), keys.prefix_v));
  return add_product(from_prefix, weights.narrow(-1, prefix, tail), keys.tail_v).reshape(q.sizes());
}

}  // namespace vlm

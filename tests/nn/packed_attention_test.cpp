// Packed attention against one dense mask; and the other hand-written backward passes of training
// against LibTorch's autograd.
#include "vlm/nn/packed_attention.h"

#include <c10/core/GradMode.h>

#include "tests/support/tensors.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/frozen_linear.h"

namespace vlm {
namespace {

// The whole [T, T] mask that the segments mean.
at::Tensor dense_mask(const std::vector<Segment>& segments, std::int64_t tokens) {
  at::Tensor mask = at::zeros({1, 1, tokens, tokens}, at::kBool);
  for (const Segment& s : segments) {
    const at::Tensor rows = mask.narrow(2, s.begin, s.length);
    rows.narrow(3, s.begin, s.length).copy_(at::ones({s.length, s.length}, at::kBool).tril());
    rows.narrow(3, s.prefix_begin, s.prefix_length).fill_(true);
  }
  return mask;
}

struct Inputs {
  at::Tensor q, k, v;
  Inputs(std::int64_t heads, std::int64_t kv_heads, std::int64_t tokens) {
    q = at::randn({1, tokens, heads, 16}).transpose(1, 2).requires_grad_();
    k = at::randn({1, tokens, kv_heads, 16}).transpose(1, 2).requires_grad_();
    v = at::randn({1, tokens, kv_heads, 16}).transpose(1, 2).requires_grad_();
  }
  std::vector<at::Tensor> take_grads() {
    std::vector<at::Tensor> grads;
    for (at::Tensor* t : {&q, &k, &v}) {
      grads.push_back(t->grad());
      t->mutable_grad() = at::Tensor();
    }
    return grads;
  }
};

TEST_CASE("segments see themselves and their prefix, in value and gradient") {
  at::manual_seed(3);
  const std::vector<std::vector<Segment>> layouts = {
      {{0, 70}},
      {{0, 1}, {1, 40}, {41, 29}},
      // A prefix, two behind it, a sample on its own, a prefix with one behind it.
      {{0, 20}, {20, 7, 0, 20}, {27, 1, 0, 20}, {28, 10}, {38, 30}, {68, 2, 38, 30}}};
  for (const auto& segments : layouts) {
    for (const std::int64_t kv_heads : {1, 3, 6}) {
      INFO(segments.size() << " segments, " << kv_heads << " heads of keys");
      Inputs in(6, kv_heads, 70);
      const at::Tensor dy = at::randn({1, 6, 70, 16});
      const at::Tensor wanted =
          grouped_attention(in.q, in.k, in.v, dense_mask(segments, 70), false);
      wanted.backward(dy);
      const auto wanted_grads = in.take_grads();
      const auto row = std::make_shared<const PackedRow>(segments);
      const at::Tensor found = packed_attention(in.q, in.k, in.v, row);
      check_close(found, wanted, 2e-6);
      found.backward(dy);
      const auto grads = in.take_grads();
      for (std::size_t i = 0; i < 3; ++i) check_close(grads[i], wanted_grads[i], 5e-6);
      const c10::NoGradGuard no_grad;  // the path of devices other than a CPU
      check_close(packed_attention(in.q, in.k, in.v, row), wanted, 2e-6);
    }
  }
}

TEST_CASE("a row's masks are made once, for all layers of a pass") {
  const PackedRow row({{0, 20}, {20, 7, 0, 20}, {27, 10}});
  const at::TensorOptions options(at::kFloat);
  CHECK_FALSE(row.mask(0, options).defined());
  CHECK_FALSE(row.mask(2, options).defined());
  const at::Tensor mask = row.mask(1, options);
  CHECK(mask.sizes() == at::IntArrayRef({1, 1, 7, 27}));
  CHECK(mask.eq(0).equal(dense_mask(row.segments(), 37).narrow(2, 20, 7).narrow(3, 0, 27)));
  CHECK(row.mask(1, options).is_same(mask));
  CHECK(row.mask(1, options.dtype(at::kDouble)).scalar_type() == at::kDouble);
}

TEST_CASE("rows of a padded batch are causal") {
  at::manual_seed(4);
  const at::Tensor q = at::randn({3, 4, 9, 8}).requires_grad_();
  const at::Tensor k = at::randn({3, 2, 9, 8}), v = at::randn({3, 2, 9, 8});
  const at::Tensor wanted = grouped_attention(q, k, v, {}, true);
  wanted.sum().backward();
  const at::Tensor grad = q.grad().clone();
  q.mutable_grad() = at::Tensor();
  const at::Tensor found = causal_attention(q, k, v);
  check_close(found, wanted, 2e-6);
  found.sum().backward();
  check_close(q.grad(), grad, 5e-6);
}

TEST_CASE("positions begin anew in each segment and go on from a prefix") {
  CHECK(packed_positions({{0, 3}, {3, 2, 0, 3}, {5, 2}})
            .equal(at::tensor({0, 1, 2, 3, 4, 0, 1}, at::kLong).unsqueeze(0)));
}

TEST_CASE("gradients flow through frozen bfloat16 weights as through the same in float32") {
  at::manual_seed(6);
  const at::Tensor weight = at::randn({300, 40}).to(at::kBFloat16), bias = at::randn({300});
  for (const std::int64_t rows : {3, 200}) {  // both ways to multiply
    const at::Tensor x = at::randn({2, rows, 40}).requires_grad_(), dy = at::randn({2, rows, 300});
    const at::Tensor wanted = at::linear(x, weight.to(at::kFloat), bias);
    wanted.backward(dy);
    const at::Tensor grad = x.grad().clone();
    x.mutable_grad() = at::Tensor();
    const at::Tensor found = frozen_bfloat16_linear(x, weight, bias, at::kFloat);
    check_close(found, wanted, 1e-5);
    found.backward(dy);
    check_close(x.grad(), grad, 1e-5);
  }
}

}  // namespace
}  // namespace vlm

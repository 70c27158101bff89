// Rotary embedding: the one pass over float32 equals LibTorch's operators, forward and backward.
#include "vlm/nn/rotary.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "tests/support/tensors.h"

namespace vlm {
namespace {

at::Tensor rotate_plainly(const at::Tensor& q, const RotaryTable& table) {
  const auto halves = q.chunk(2, -1);
  return q * table.cos + at::cat({-halves[1], halves[0]}, -1) * table.sin;
}

TEST_CASE("rotary: values and gradients of the plain formula, for any strides and positions") {
  at::manual_seed(1);
  const at::Tensor shared = at::arange(3, 10).unsqueeze(0);               // for all rows
  const at::Tensor own = at::stack({at::arange(7), at::arange(40, 47)});  // row by row
  for (const at::Tensor& positions : {shared, own}) {
    const RotaryTable table = Rotary({.dims = 12}).make_table(positions, at::kFloat);
    const at::Tensor projected = at::randn({2, 7, 3, 12});
    for (const at::Tensor& values : {projected.transpose(1, 2), at::randn({2, 3, 7, 12}),
                                     at::randn({2, 3, 12, 7}).transpose(2, 3)}) {
      const at::Tensor dy = at::randn({2, 3, 7, 12});
      const auto run = [&](auto apply) {
        const at::Tensor q = values.detach().clone().requires_grad_();
        const at::Tensor y = apply(q, table);
        y.backward(dy);
        return std::pair{y.detach(), q.grad()};
      };
      const auto [found, grad] = run(apply_rotary);
      const auto [wanted, wanted_grad] = run(rotate_plainly);
      check_close(found, wanted, 1e-6);
      check_close(grad, wanted_grad, 1e-6);
      const c10::NoGradGuard no_grad;
      CHECK(apply_rotary(values, table).equal(found));
    }
  }
}

TEST_CASE("rotary: bfloat16 as ever") {
  at::manual_seed(2);
  const RotaryTable table =
      Rotary({.dims = 8}).make_table(at::arange(5).unsqueeze(0), at::kBFloat16);
  const at::Tensor q = at::randn({1, 2, 5, 8}).to(at::kBFloat16);
  CHECK(apply_rotary(q, table).equal(rotate_plainly(q, table)));
}

}  // namespace
}  // namespace vlm

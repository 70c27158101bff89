// The non-linear parts of MLPs: LibTorch's, in value and gradient.
#include "vlm/nn/cpu/activations.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "tests/support/tensors.h"

namespace vlm {
namespace {

TEST_CASE("the gate of the MLP, in value and gradient") {
  at::manual_seed(5);
  const at::Tensor gate = (at::randn({4, 50}) * 4).requires_grad_();
  const at::Tensor up = at::randn({4, 50}).requires_grad_(), dy = at::randn({4, 50});
  const at::Tensor wanted = at::silu(gate) * up;
  wanted.backward(dy);
  const at::Tensor grad_gate = gate.grad().clone(), grad_up = up.grad().clone();
  gate.mutable_grad() = at::Tensor();
  up.mutable_grad() = at::Tensor();
  const at::Tensor found = gated_silu(gate, up);
  check_close(found, wanted, 1e-6);
  found.backward(dy);
  check_close(gate.grad(), grad_gate, 1e-6);
  check_close(up.grad(), grad_up, 1e-6);
  gate.mutable_grad() = at::Tensor();
  up.mutable_grad() = at::Tensor();
  gated_silu(gate, up, at::kBFloat16).backward(dy);
  CHECK_FALSE(gate.grad().equal(grad_gate));
  check_close(gate.grad(), grad_gate, 1e-2);
  check_close(up.grad(), grad_up, 1e-2);
  const c10::NoGradGuard no_grad;
  check_close(gated_silu(gate.detach().clone(), up), wanted, 1e-6);
}

TEST_CASE("Every kind of GELU, with and without a gradient, quick between products in bfloat16") {
  at::manual_seed(7);
  const auto kind = GENERATE(Gelu::kErf, Gelu::kTanh, Gelu::kQuick);
  // More than one piece of 32768 and a rest of 5; both tails; zeros; what overflows the cube.
  at::Tensor x = at::randn({3, 11111}) * 6;
  x.view(-1).narrow(0, 0, 6).copy_(at::tensor({0.0F, -0.0F, 30.0F, -30.0F, 1e20F, -1e20F}));
  const at::Tensor exact = x.to(at::kDouble);
  const at::Tensor wanted = (kind == Gelu::kQuick  ? exact * at::sigmoid(exact * 1.702)
                             : kind == Gelu::kTanh ? at::gelu(exact, "tanh")
                                                   : at::gelu(exact))
                                .to(at::kFloat);
  check_close(gelu(x, kind), wanted, 1e-6);
  CHECK(gelu(x, kind, at::kBFloat16).equal(gelu(x, kind)));  // exact while gradients are recorded
  const c10::NoGradGuard no_grad;
  const at::Tensor found = gelu(x.clone(), kind, at::kBFloat16);
  CHECK_FALSE(found.equal(gelu(x.clone(), kind)));
  const at::Tensor scale = wanted.abs() + x.abs().clamp_max(1.0);
  CHECK(((found - wanted).abs() / (scale + 1e-30)).max().item<double>() < 4e-6);
  const at::Tensor odd = at::tensor({NAN, INFINITY, 2.0F});
  const at::Tensor through = gelu(odd.clone(), kind, at::kBFloat16);
  CHECK(through[0].isnan().item<bool>());
  CHECK(through[1].item<float>() == INFINITY);
}

}  // namespace
}  // namespace vlm

// Rotary embedding: the one pass over float32 equals LibTorch's operators, forward and backward.
#include "vlm/nn/rotary.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

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

TEST_CASE("rotary: cos and sin of every kind are transformers'") {
  using Kind = RotarySettings::Kind;
  const Golden golden("rotary/golden.safetensors");
  const auto check = [&](const std::string& name, const RotarySettings& settings,
                         const std::string& positions, bool is_long = false) {
    INFO(name);
    const RotaryTable table = Rotary(settings).make_table(
        golden[positions], at::kFloat, is_long ? at::ones({1, 1}, at::kBool) : at::Tensor());
    check_close(table.cos, golden[name + ".cos"], 1e-6);
    check_close(table.sin, golden[name + ".sin"], 1e-6);
  };
  check("default", {.dims = 64, .theta = 273768}, "far");
  check("linear", {.kind = Kind::kLinear, .dims = 64, .factor = 8}, "far");
  check("llama3",
        {.kind = Kind::kLlama3,
         .dims = 64,
         .theta = 500000,
         .factor = 32,
         .original_positions = 8192},
        "far");
  RotarySettings phi{.kind = Kind::kLongRope,
                     .dims = 6,
                     .original_positions = 16,
                     .short_factor = {1, 1.1, 1.3},
                     .long_factor = {1.5, 4, 30},
                     .attention_factor = std::sqrt(1 + std::log(32.0) / std::log(16.0))};
  check("short", phi, "near");
  phi.long_factor.swap(phi.short_factor);  // the same by the other way
  {
    INFO("long");
    const RotaryTable table = Rotary(phi).make_table(golden["near"] + 1, at::kFloat);
    check_close(table.cos, golden["long.cos"], 1e-6);
    phi.long_factor.swap(phi.short_factor);
    const RotaryTable switched =
        Rotary(phi).make_table(golden["near"] + 1, at::kFloat, at::ones({1, 1}, at::kBool));
    CHECK(switched.cos.equal(table.cos));
    CHECK(switched.sin.equal(table.sin));
    check_close(switched.sin, golden["long.sin"], 1e-6);
  }
  check("sections", {.dims = 16, .sections = {4, 2, 2}}, "three");
  check("interleaved", {.dims = 16, .sections = {4, 2, 2}, .are_sections_interleaved = true},
        "three");
}

TEST_CASE("rotary: short rows and long ones in one table") {
  const RotarySettings settings{.kind = RotarySettings::Kind::kLongRope,
                                .dims = 4,
                                .original_positions = 5,
                                .short_factor = {1, 2},
                                .long_factor = {3, 7}};
  const Rotary rotary(settings);
  CHECK(rotary.switch_length() == 5);
  const at::Tensor positions = at::arange(6).unsqueeze(0);
  const at::Tensor is_long = at::tensor({0, 1}, at::kLong).to(at::kBool).unsqueeze(1);
  const RotaryTable both = rotary.make_table(positions, at::kFloat, is_long);
  CHECK(both.cos[0].equal(rotary.make_table(positions, at::kFloat).cos[0]));
  CHECK(both.cos[1].equal(
      rotary.make_table(positions, at::kFloat, at::ones({1, 1}, at::kBool)).cos[0]));
  CHECK_FALSE(both.cos[0].equal(both.cos[1]));
}

TEST_CASE("rotary: llama3 slows long waves by the published steps") {
  const Rotary plain({.dims = 64, .theta = 500000});
  const Rotary slowed({.kind = RotarySettings::Kind::kLlama3,
                       .dims = 64,
                       .theta = 500000,
                       .factor = 32,
                       .original_positions = 8192});
  const at::Tensor one = at::ones({1, 1}, at::kLong);
  // Of small angles the sine is the angle, but for its third power.
  const at::Tensor ratio = slowed.make_table(one, at::kFloat).sin.flatten().asin() /
                           plain.make_table(one, at::kFloat).sin.flatten().asin();
  const std::vector<std::pair<int, double>> wanted = {
      {1, 1}, {14, 1}, {15, 0.60557}, {16, 0.30374}, {17, 0.10345}, {18, 1.0 / 32}, {31, 1.0 / 32}};
  for (const auto& [i, value] : wanted) {
    INFO(i);
    CHECK(ratio[i].item<double>() == Approx(value).epsilon(1e-4));
  }
}

TEST_CASE("rotary: a part of each head turns, the rest passes, values and gradients") {
  at::manual_seed(3);
  const RotaryTable table = Rotary({.dims = 6}).make_table(at::arange(5).unsqueeze(0), at::kFloat);
  const at::Tensor values = at::randn({2, 5, 3, 10}).transpose(1, 2);
  const auto run = [&](auto apply) {
    const at::Tensor q = values.detach().clone().requires_grad_();
    const at::Tensor y = apply(q);
    (y * at::arange(y.numel()).view(y.sizes())).sum().backward();
    return std::pair{y.detach(), q.grad()};
  };
  const auto [found, grad] = run([&](const at::Tensor& q) { return apply_rotary(q, table); });
  const auto [wanted, wanted_grad] = run([&](const at::Tensor& q) {
    return at::cat({rotate_plainly(q.narrow(3, 0, 6), table), q.narrow(3, 6, 4)}, 3);
  });
  check_close(found, wanted, 1e-6);
  check_close(grad, wanted_grad, 1e-6);
  CHECK(found.narrow(3, 6, 4).equal(values.narrow(3, 6, 4)));
  const at::Tensor narrow = values.to(at::kBFloat16);
  const RotaryTable table16 =
      Rotary({.dims = 6}).make_table(at::arange(5).unsqueeze(0), at::kBFloat16);
  CHECK(apply_rotary(narrow, table16).narrow(3, 6, 4).equal(narrow.narrow(3, 6, 4)));
}

}  // namespace
}  // namespace vlm

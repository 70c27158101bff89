// One-pass normalisation against the formula in float64.
#include "vlm/nn/rms_norm.h"

#include <ATen/ATen.h>

#include "tests/support/catch.h"
#include "vlm/core/concat.h"

namespace vlm {
namespace {

TEST_CASE("rows are normalised as by the formula, for any width, shape and strides") {
  at::manual_seed(6);
  for (const std::int64_t width : {1, 15, 16, 17, 576}) {
    INFO(concat("width ", width));
    const at::Tensor weight = at::randn({width});
    const at::Tensor x = at::randn({width, 3, 200}).permute({1, 2, 0}) * 5;
    const at::Tensor wide = x.to(at::kDouble);
    const at::Tensor wanted =
        weight.to(at::kDouble) * wide / (wide.square().mean(-1, true) + 1e-5).sqrt();
    const at::Tensor found = normalize_rows(x, weight, 1e-5);
    REQUIRE(found.sizes() == x.sizes());
    CHECK(((found - wanted).abs().max() / wanted.abs().max()).item<double>() < 5e-7);
  }
  CHECK(normalize_rows(at::empty({0, 4}), at::ones({4}), 1e-5).sizes() == at::IntArrayRef({0, 4}));
  CHECK(normalize_rows(at::zeros({1, 4}), at::ones({4}), 1e-5).equal(at::zeros({1, 4})));
}

TEST_CASE("gradients of normalised rows are those of the formula") {
  at::manual_seed(7);
  for (const std::int64_t width : {15, 17, 576}) {
    INFO(concat("width ", width));
    const at::Tensor x = (at::randn({3, 5, width}) * 5).requires_grad_();
    const at::Tensor weight = at::randn({width}).requires_grad_(), dy = at::randn({3, 5, width});
    const at::Tensor wide = x.detach().to(at::kDouble).requires_grad_();
    const at::Tensor scale = weight.detach().to(at::kDouble).requires_grad_();
    (scale * wide * (wide.square().mean(-1, true) + 1e-5).rsqrt()).backward(dy.to(at::kDouble));
    normalize_rows(x, weight, 1e-5).backward(dy);
    CHECK(((x.grad() - wide.grad()).abs().max() / wide.grad().abs().max()).item<double>() < 2e-6);
    CHECK((weight.grad() - scale.grad()).abs().max().item<double>() <
          2e-6 * scale.grad().abs().max().item<double>());
  }
  const at::Tensor x = at::randn({2, 4}).requires_grad_();
  normalize_rows(x, at::ones({4}), 1e-5).sum().backward();  // a frozen weight
  CHECK(x.grad().defined());
  CHECK_FALSE(normalize_rows(x.detach(), at::ones({4}), 1e-5).requires_grad());
}

TEST_CASE("only float32 is taken") {
  const at::Tensor x = at::ones({2, 4}), narrow = x.to(at::kBFloat16);
  CHECK(can_normalize_rows(x, at::ones({4})));
  CHECK_FALSE(can_normalize_rows(narrow, at::ones({4})));
  CHECK_FALSE(can_normalize_rows(x, at::ones({4}, at::kBFloat16)));
}

}  // namespace
}  // namespace vlm

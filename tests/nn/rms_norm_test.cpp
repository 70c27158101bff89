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

TEST_CASE("only float32 is taken") {
  const at::Tensor x = at::ones({2, 4}), narrow = x.to(at::kBFloat16);
  CHECK(can_normalize_rows(x, at::ones({4})));
  CHECK_FALSE(can_normalize_rows(narrow, at::ones({4})));
  CHECK_FALSE(can_normalize_rows(x, at::ones({4}, at::kBFloat16)));
}

}  // namespace
}  // namespace vlm

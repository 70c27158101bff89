// Products with bfloat16 weights: those of the same weights in float32.
#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_panels.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_product.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

TEST_CASE("bfloat16 weights: as in float32, for every path and edge") {
  at::manual_seed(3);
  // Rows on both sides of the direct path's limit; widths with and without a rest; more than one
  // block of converted weights (4 MB) and more than one piece a thread takes.
  const std::vector<std::pair<std::int64_t, std::int64_t>> weights = {
      {1, 1}, {3, 31}, {5, 32}, {7, 33}, {66, 100}, {130, 1537}, {1100, 1024}};
  for (const auto& [n, k] : weights) {
    const at::Tensor weight = at::randn({n, k}).to(at::kBFloat16);
    const at::Tensor bias = at::randn({n});
    for (const std::int64_t rows : {1, 2, 3, 5, 7, 8, 9, 20, 64, 65, 130}) {
      INFO(concat("rows ", rows, ", weight ", n, " x ", k));
      const at::Tensor x = at::randn({rows, k});
      CHECK(linear_error(bfloat16_linear(x, weight, {}), x, weight, {}) < 1e-6);
      CHECK(linear_error(bfloat16_linear(x, weight, bias), x, weight, bias) < 1e-6);
    }
  }
}

TEST_CASE("bfloat16 weights: any leading shape, strides, no rows; one thread gives the same") {
  at::manual_seed(4);
  const at::Tensor weight = at::randn({40, 64}).to(at::kBFloat16);
  const at::Tensor x = at::randn({64, 2, 3}).permute({1, 2, 0});  // not contiguous
  const at::Tensor y = bfloat16_linear(x, weight, {});
  CHECK(linear_error(y, x, weight, {}) < 1e-6);
  CHECK(bfloat16_linear(at::empty({0, 64}), weight, {}).sizes() == at::IntArrayRef({0, 40}));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK(bfloat16_linear(x, weight, {}).equal(y));
  at::set_num_threads(threads);
}

TEST_CASE("products in bfloat16: rounded for many rows, exact for a few, in both directions") {
  at::manual_seed(6);
  const at::Tensor weight = at::randn({50, 96}).to(at::kBFloat16), bias = at::randn({50});
  const auto linear = [&](const at::Tensor& x) {
    return bfloat16_linear(x, weight, bias, at::kBFloat16);
  };
  const at::Tensor few = at::randn({16, 96}), many = at::randn({3, 10, 96});
  CHECK(linear(few).equal(bfloat16_linear(few, weight, bias)));
  CHECK_FALSE(linear(many).equal(bfloat16_linear(many, weight, bias)));
  CHECK(linear_error(linear(many), many, weight, bias) < 8e-3);
  // What is left is the rounding of x, and of the result where LibTorch multiplies.
  const at::Tensor exact = many.to(at::kBFloat16).to(at::kFloat);
  CHECK(linear_error(linear(many), exact, weight, bias) < 4e-3);

  const at::Tensor dy = at::randn({3, 10, 50});
  const at::Tensor dx = times_bfloat16(dy, weight, at::kBFloat16);
  CHECK(linear_error(dx, dy, weight.t(), {}) < 8e-3);
  CHECK_FALSE(dx.equal(times_bfloat16(dy, weight)));
}

at::Tensor linear_in_panels(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return panel_linears(x, {{weight, bias}})[0];
}

TEST_CASE("products in panels: those of the rounded inputs, for every edge of blocks and panels") {
  if (!has_panel_products()) {
    WARN("this processor has no bfloat16 products: not tested");
    return;
  }
  at::manual_seed(8);
  // Blocks of 64 rows of W, pieces of 256, panels of up to 64 rows of x, 32 summands packed at a
  // time and 2048 multiplied.
  const std::vector<std::pair<std::int64_t, std::int64_t>> weights = {
      {2, 2},    {16, 30},   {50, 96},   {64, 64},  {70, 34},
      {258, 62}, {300, 576}, {4300, 72}, {80, 4100}};
  for (const auto& [n, k] : weights) {
    const at::Tensor weight = at::randn({n, k}).to(at::kBFloat16), bias = at::randn({n});
    for (const std::int64_t rows : {1, 17, 63, 64, 65, 129, 193, 300}) {
      INFO(concat("rows ", rows, ", weight ", n, " x ", k));
      const at::Tensor x = at::randn({rows, k}), dy = at::randn({rows, n});
      REQUIRE(can_multiply_in_panels(x));
      const at::Tensor rounded = x.to(at::kBFloat16);
      CHECK(linear_error(linear_in_panels(x, weight, {}), rounded, weight, {}) < 4e-6);
      CHECK(linear_error(linear_in_panels(x, weight, bias), rounded, weight, bias) < 4e-6);
      CHECK(linear_error(panel_times(dy, weight), dy.to(at::kBFloat16), weight.t(), {}) < 4e-6);
    }
  }
  CHECK_FALSE(can_multiply_in_panels(at::randn({20, 3})));
  const at::Tensor weight = at::randn({600, 64}).to(at::kBFloat16);
  const at::Tensor x = at::randn({900, 64}), dy = at::randn({200, 600});
  const at::Tensor y = linear_in_panels(x, weight, {}), dx = panel_times(dy, weight);
  // Few rows of x are packed, for many the weight is.
  CHECK(linear_in_panels(x.narrow(0, 0, 20), weight, {}).equal(y.narrow(0, 0, 20)));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK(linear_in_panels(x, weight, {}).equal(y));
  CHECK(panel_times(dy, weight).equal(dx));
  at::set_num_threads(threads);
  CHECK(linear_in_panels(at::full({20, 64}, NAN), weight, {}).isnan().all().item<bool>());
}

TEST_CASE("several maps of one input give what each gives alone") {
  at::manual_seed(9);
  std::vector<WeightAndBias> maps;
  for (const std::int64_t n : {700, 1, 66, 300}) {
    const at::Tensor bias = n == 66 ? at::Tensor() : at::randn({n});
    maps.push_back({at::randn({n, 130}).to(at::kBFloat16), bias});
  }
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t rows : {1, 8, 16, 17, 64, 65, 200}) {
      INFO(concat("rows ", rows, ", ", c10::toString(dtype)));
      const at::Tensor x = at::randn({2, rows, 130}).narrow(1, 0, (rows + 1) / 2);
      const std::vector<at::Tensor> found = bfloat16_linears(x, maps, dtype);
      REQUIRE(found.size() == maps.size());
      for (std::size_t i = 0; i < maps.size(); ++i) {
        CHECK(found[i].equal(bfloat16_linear(x, maps[i].weight, maps[i].bias, dtype)));
      }
    }
  }
}

TEST_CASE("bfloat16 weights: large, tiny and infinite values come through") {
  const at::Tensor weight =
      at::tensor({3.0e38F, -1.0e-38F, INFINITY, -INFINITY, -0.0F}).view({5, 1}).to(at::kBFloat16);
  const at::Tensor x = at::ones({1, 1});
  CHECK(bfloat16_linear(x, weight, {}).view({-1}).equal(weight.to(at::kFloat).view({-1})));
}

TEST_CASE("a Linear whose weight is bfloat16 takes float32, and bfloat16 as ever") {
  at::manual_seed(5);
  Linear layer(48, 24, true);
  layer.weight.set_data(at::randn({24, 48}).to(at::kBFloat16));
  layer.bias.set_data(at::randn({24}));
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({2, 5, 48});
  CHECK(linear_error(layer.forward(x), x, layer.weight, layer.bias) < 1e-6);
  const auto wide = std::make_shared<Linear>(48, 6, false);
  wide->weight.set_data(at::randn({6, 48}));
  const auto half = std::make_shared<Linear>(48, 12, true);
  half->weight.set_data(at::randn({12, 48}).to(at::kBFloat16));
  half->bias.set_data(at::randn({12}));
  for (const std::vector<const Linear*>& layers :
       {std::vector<const Linear*>{half.get(), half.get()}, {half.get(), wide.get()}}) {
    const std::vector<at::Tensor> found = forward_each(x, layers);
    CHECK(found[0].equal(layers[0]->forward(x)));
    CHECK(found[1].equal(layers[1]->forward(x)));
  }
  layer.bias.set_data(layer.bias.to(at::kBFloat16));
  CHECK(layer.forward(x.to(at::kBFloat16)).scalar_type() == at::kBFloat16);
}

}  // namespace
}  // namespace vlm

// oneDNN's products against float64, and that linear layers which take them don't change.
#include "vlm/nn/cpu/onednn_linear.h"

#include <ATen/ATen.h>

#include <memory>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

TEST_CASE("oneDNN's product is the linear layer, with and without bias, for any leading shape") {
  at::manual_seed(6);
  for (const auto& [n, k] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 1}, {7, 33}, {576, 192}, {1100, 1024}}) {
    const at::Tensor weight = at::randn({n, k}), bias = at::randn({n});
    for (const auto& shape :
         std::vector<std::vector<std::int64_t>>{{1, k}, {513, k}, {2, 300, k}}) {
      INFO(concat("weight ", n, " x ", k, ", x ", at::IntArrayRef(shape)));
      const at::Tensor x = at::randn(shape);
      CHECK(linear_error(onednn_linear(x, weight, {}), x, weight, {}) < 1e-6);
      CHECK(linear_error(onednn_linear(x, weight, bias), x, weight, bias) < 1e-6);
    }
  }
}

TEST_CASE("layers give the same from many rows, whichever product they take") {
  at::manual_seed(7);
  const auto layer = std::make_shared<Linear>(1024, 1500, true);
  initialize_weights(*layer, 0.02, at::detail::createCPUGenerator(7));
  const at::Tensor x = at::randn({2, 600, 1024});
  {
    const at::NoGradGuard no_grad;
    const at::Tensor y = layer->forward(x);
    CHECK(linear_error(y, x, layer->weight, layer->bias) < 1e-6);
    // Rows of a few, which no machine gives to oneDNN.
    CHECK(at::allclose(y[0].narrow(0, 0, 5), layer->forward(x[0].narrow(0, 0, 5)), 1e-5, 1e-6));
    const at::Tensor narrow = layer->weight.to(at::kBFloat16);  // two blocks of converted weights
    CHECK(linear_error(bfloat16_linear(x, narrow, layer->bias), x, narrow, layer->bias) < 1e-6);
  }
  const at::Tensor y = layer->forward(x);  // gradients are recorded
  y.sum().backward();
  CHECK(layer->weight.grad().defined());
}

}  // namespace
}  // namespace vlm

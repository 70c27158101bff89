// Layers that adapters and NF4 make on the GPU, beside the same by plain operators.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <torch/nn/module.h>

#include "tests/support/catch.h"
#include "tests/support/simulated_cuda/device.h"
#include "tests/support/tensors.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/quantize.h"

namespace vlm {
namespace {

at::Tensor random_on_gpu(at::IntArrayRef shape) {
  return at::randn(shape).to(kGpu);
}

struct Gradients {
  at::Tensor y;
  std::vector<at::Tensor> grads;  // of x, bias, A, B
};

Gradients gradients_of(const at::Tensor& y, const std::vector<at::Tensor>& leaves) {
  y.square().sum().backward();
  Gradients found{.y = y.detach().cpu()};
  for (const at::Tensor& leaf : leaves) {
    found.grads.push_back(leaf.grad().cpu());
    leaf.mutable_grad() = at::Tensor();
  }
  return found;
}

TEST_CASE("the fused adapter on the GPU has autograd's gradients") {
  for (const double dropout : {0.0, 0.5}) {
    for (const bool is_nf4 : {false, true}) {
      INFO(dropout << " " << is_nf4);
      at::manual_seed(3);
      Linear layer(128, 64, /*has_bias=*/true);
      layer.weight.set_data(random_on_gpu({64, 128}));
      layer.bias.set_data(random_on_gpu({64}));
      if (is_nf4) layer.store_nf4(layer.weight);
      if (!is_nf4) layer.weight.requires_grad_(false);
      layer.set_lora(std::make_shared<LoraBranch>(
          layer, BranchOptions{.r = 4, .scaling = 0.7, .dropout = dropout}));
      const at::Tensor a = layer.lora()->a()->weight, b = layer.lora()->b()->weight;
      a.set_data(random_on_gpu({4, 128}));
      b.set_data(random_on_gpu({64, 4}));
      layer.train();
      const at::Tensor x = random_on_gpu({3, 5, 128}).requires_grad_();
      const std::vector<at::Tensor> leaves = {x, layer.bias, a, b};
      at::manual_seed(4);
      const Gradients found = gradients_of(layer.forward(x), leaves);
      at::manual_seed(4);
      const at::Tensor dropped = dropout > 0 ? at::dropout(x, dropout, true) : x;
      const at::Tensor wide = layer.dense_weight().detach();
      const Gradients wanted = gradients_of(
          at::linear(x, wide, layer.bias) + at::linear(at::linear(dropped, a), b) * 0.7, leaves);
      check_close(found.y, wanted.y, 1e-3);
      for (std::size_t i = 0; i < leaves.size(); ++i) {
        check_close(found.grads[i] / wanted.grads[i].abs().max(),
                    wanted.grads[i] / wanted.grads[i].abs().max(), 1e-4);
      }
    }
  }
}

TEST_CASE("NF4 on the GPU is expanded to the CPU's values, in little memory") {
  at::manual_seed(5);
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{64, 64}, {7, 9}, {300, 111}, {4096, 8192}}) {
    const Nf4Weight host = quantize_nf4(at::randn(shape));
    Nf4Weight there = host;
    for (at::Tensor* part :
         {&there.codes, &there.absmax.codes, &there.absmax.scales, &there.absmax_mean}) {
      *part = part->to(kGpu);
    }
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor found = dequantize_nf4(there, dtype);
      CHECK(found.cpu().equal(dequantize_nf4(host, dtype)));
    }
    const std::int64_t before = simulated_cuda::current_bytes();
    simulated_cuda::reset_peak();
    const at::Tensor wide = dequantize_nf4(there, at::kBFloat16);
    const auto bytes = static_cast<double>(wide.nbytes());
    if (bytes < 60e6) continue;
    CHECK(static_cast<double>(simulated_cuda::peak_bytes() - before) <= 1.5 * bytes);
  }
}

}  // namespace
}  // namespace vlm

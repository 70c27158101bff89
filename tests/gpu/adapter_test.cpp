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
#include "vlm/nn/frozen_linear.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/lora/narrow_adapters.h"
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

// A model of two blocks and a layer beside them.
class Blocks : public torch::nn::Module {
 public:
  Blocks() {
    const auto list = register_module("layers", std::make_shared<torch::nn::Module>());
    for (const std::string block : {"0", "1"}) {
      const auto child = list->register_module(block, std::make_shared<torch::nn::Module>());
      add(*child, "q_proj", 64, 64, true);
      add(*child, "k_proj", 64, 24, false);  // neither a whole block of scales nor even a whole one
      add(*child, "down_proj", 321, 63, true);
    }
    add(*this, "proj", 64, 32, false);
  }
  std::vector<std::shared_ptr<Linear>> linears;

 private:
  void add(torch::nn::Module& parent, const std::string& name, std::int64_t in, std::int64_t out,
           bool has_bias) {
    linears.push_back(parent.register_module(name, std::make_shared<Linear>(in, out, has_bias)));
    Linear& linear = *linears.back();
    linear.weight.set_data(random_on_gpu({out, in}));
    if (has_bias) linear.bias.set_data(random_on_gpu({out}));
    linear.store_nf4(linear.weight);
  }
};

TEST_CASE("the NF4 weights of a block are expanded together, to what each is alone") {
  at::manual_seed(6);
  const auto owner = std::make_shared<Blocks>();
  const Blocks& model = *owner;
  std::vector<at::Tensor> wide;
  std::vector<std::int64_t> bytes;
  for (const auto& linear : model.linears) {
    wide.push_back(linear->dense_weight().cpu());
    bytes.push_back(linear->nf4()->nbytes());
  }
  const std::shared_ptr<WideBlock> last = join_nf4_blocks(model);
  REQUIRE(last);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    INFO(i);
    const Linear& linear = *model.linears[i];
    CHECK(linear.nf4()->nbytes() == bytes[i]);
    CHECK(linear.named_buffers().size() == 4);
    CHECK(linear.dense_weight().cpu().equal(wide[i]));
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      CHECK(widen_nf4(*linear.nf4(), dtype).cpu().equal(wide[i].to(dtype)));
    }
    const at::Tensor x = random_on_gpu({5, linear.in_features()}).requires_grad_();
    const at::Tensor y = linear.forward(x);
    y.sum().backward();
    const at::Tensor in = x.detach().cpu().requires_grad_();
    const at::Tensor wanted =
        at::linear(in, wide[i], linear.bias.defined() ? linear.bias.detach().cpu() : at::Tensor());
    wanted.sum().backward();
    check_close(y, wanted.detach(), 1e-5);
    check_close(x.grad(), in.grad(), 1e-5);
  }
  // Three layers of a block, forward and backward, take one expansion of seven operators.
  const auto use = [&](std::size_t block) {
    for (std::size_t i = 3 * block; i < 3 * block + 3; ++i) {
      widen_nf4(*model.linears[i]->nf4(), at::kFloat);
    }
  };
  use(0);
  CHECK(counts_of([&] { use(0); }).operators == 0);
  CHECK(counts_of([&] { use(1); }).operators == 7);
  last->release();
  CHECK(counts_of([&] { use(1); }).operators == 7);
  // A layer whose weight is replaced leaves the block as it is.
  model.linears[3]->store_nf4(wide[3].to(kGpu) * 2);
  CHECK(widen_nf4(*model.linears[3]->nf4(), at::kFloat)
            .cpu()
            .equal(dequantize_nf4(quantize_nf4(wide[3] * 2), at::kFloat)));
  CHECK(widen_nf4(*model.linears[4]->nf4(), at::kFloat).cpu().equal(wide[4]));
}

// The shapes of a block of 2.2B parameters. What the codes are makes no difference.
TEST_CASE("expanding a block takes at most 1.2 times the memory of what it becomes") {
  std::vector<Nf4Weight> weights;
  std::vector<const Nf4Weight*> pointers;
  for (const std::int64_t out : {2048, 2048, 2048, 2048, 8192, 8192, 8192}) {
    const std::int64_t values = out * 2048, blocks = values / 64;
    weights.push_back({.codes = at::zeros({values / 2}, at::TensorOptions(kGpu).dtype(at::kByte)),
                       .absmax = {at::zeros({blocks}, at::TensorOptions(kGpu).dtype(at::kByte)),
                                  at::ones({blocks / 256}, at::TensorOptions(kGpu))},
                       .absmax_mean = at::ones({}, at::TensorOptions(kGpu)),
                       .shape = {out, 2048}});
  }
  for (const Nf4Weight& weight : weights) pointers.push_back(&weight);
  const auto last = std::make_shared<WideBlock>();
  std::vector<Nf4Weight> parts = join_nf4(pointers, last), others = join_nf4(pointers, last);
  weights.clear();
  widen_nf4(others[0], at::kBFloat16);  // another block was expanded before
  const auto bytes = static_cast<double>(last->values.nbytes());
  const std::int64_t before = simulated_cuda::current_bytes();
  simulated_cuda::reset_peak();
  widen_nf4(parts[0], at::kBFloat16);
  CHECK(bytes == 2.0 * 2048 * 2048 * 16);
  CHECK(simulated_cuda::current_bytes() == before);
  CHECK(static_cast<double>(simulated_cuda::peak_bytes() - before) <= 0.2 * bytes);
}

TEST_CASE("adapters are multiplied as copies in bfloat16, which one operator makes") {
  at::manual_seed(7);
  const auto owner = std::make_shared<Blocks>();
  const Blocks& model = *owner;
  for (const auto& linear : model.linears) {
    linear->set_lora(std::make_shared<LoraBranch>(*linear, BranchOptions{.r = 8, .scaling = 0.3}));
    for (const auto& half : {linear->lora()->a(), linear->lora()->b()}) {
      half->weight.set_data(random_on_gpu(half->weight.sizes()));
    }
  }
  NarrowAdapters copies(model, at::kBFloat16);
  const Linear& linear = *model.linears[2];
  const at::Tensor a = linear.lora()->a()->weight, b = linear.lora()->b()->weight;
  const at::Tensor x = random_on_gpu({10, 321}).to(at::kBFloat16);
  const auto train = [&] {
    const at::Tensor y = linear.forward(x);
    y.to(at::kFloat).sum().backward();
    return y.detach().cpu();
  };
  const at::Tensor narrow_a = a.detach().cpu().to(at::kBFloat16).to(at::kFloat),
                   narrow_b = b.detach().cpu().to(at::kBFloat16).to(at::kFloat);
  const at::Tensor wide_x = x.cpu().to(at::kFloat), ones = at::ones({10, 63});
  const at::Tensor wanted = at::linear(wide_x, linear.dense_weight().cpu(), linear.bias.cpu()) +
                            at::linear(at::linear(wide_x, narrow_a), narrow_b) * 0.3;
  check_close(train().to(at::kFloat), wanted.detach(), 2e-2);
  // The gradients are float32, and no sum was rounded on its way there.
  REQUIRE(a.grad().scalar_type() == at::kFloat);
  CHECK_FALSE(a.grad().equal(a.grad().to(at::kBFloat16).to(at::kFloat)));
  check_close(a.grad(), (ones.matmul(narrow_b) * 0.3).t().matmul(wide_x), 2e-2);
  check_close(b.grad(), ones.t().matmul(at::linear(wide_x, narrow_a) * 0.3), 2e-2);
  const auto step = [&] {
    const c10::NoGradGuard no_grad;
    b.add_(1);
  };
  step();
  CHECK_THROWS_WITH(linear.forward(x), Contains("an adapter has changed, and its copies haven't"));
  CHECK(counts_of([&] { copies.refresh(); }).operators == 1);
  const at::Tensor changed = train();
  check_close(changed.to(at::kFloat),
              (wanted + (at::linear(wide_x, narrow_a) * 0.3).sum(1, /*keepdim=*/true)).detach(),
              2e-2);
}

TEST_CASE("the copies of adapters end with their owner") {
  const auto owner = std::make_shared<Blocks>();
  const Blocks& model = *owner;
  Linear& linear = *model.linears[0];
  linear.set_lora(std::make_shared<LoraBranch>(linear, BranchOptions{.r = 2}));
  {
    const NarrowAdapters copies(model, at::kBFloat16);
    CHECK(copies.nbytes() == 2 * 2 * (64 + 64));
    CHECK(linear.lora()->narrow.a.defined());
  }
  CHECK_FALSE(linear.lora()->narrow.a.defined());
  CHECK(NarrowAdapters(model, at::kFloat).nbytes() == 0);
}

}  // namespace
}  // namespace vlm

#include "vlm/nn/kv_cache.h"

#include "tests/support/tensors.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/lora.h"
#include "vlm/nn/runtime.h"

namespace vlm {
namespace {

TEST_CASE("a cache gives back what was appended, and follows its rows") {
  KvCache cache({.layers = 2, .kv_heads = 1, .head_dim = 4}, 3, 6, at::kFloat);
  const at::Tensor k = at::rand({3, 1, 2, 4}), v = at::rand({3, 1, 2, 4});
  for (const std::int64_t layer : {0, 1}) {
    const auto [keys, values] = cache.append(layer, k + layer, v);
    CHECK(keys.equal(k + layer));
    CHECK(values.equal(v));
  }
  cache.advance(2);
  cache.select_rows(at::tensor({2, 0}, at::kLong));
  const auto [keys, values] = cache.append(0, at::ones({2, 1, 1, 4}), at::ones({2, 1, 1, 4}));
  CHECK(keys.narrow(2, 0, 2).equal(at::stack({k[2], k[0]})));
  CHECK(keys.select(2, 2).eq(1).all().item<bool>());
  CHECK(cache.length() == 2);
}

TEST_CASE("a cache refuses more than its capacity") {
  KvCache cache({.layers = 1, .kv_heads = 1, .head_dim = 2}, 1, 3, at::kFloat);
  const at::Tensor four = at::zeros({1, 1, 4, 2});
  CHECK_THROWS_WITH(cache.append(0, four, four), Contains("KV cache holds 3 tokens, got 4"));
}

TEST_CASE("checkpointed activations give the same gradients, dropout included") {
  const auto module = std::make_shared<Linear>(5, 5, true);
  Linear& linear = *module;
  initialize_weights(linear, 0.3, at::detail::createCPUGenerator(1));
  const auto block = [&](const at::Tensor& x) {
    return at::dropout(linear.forward(x).tanh(), 0.4, true);
  };
  const at::Tensor input = at::rand({7, 5});
  at::Tensor gradients[2], outputs[2], input_gradients[2];
  for (const int run : {0, 1}) {
    at::manual_seed(9);
    linear.zero_grad();
    at::Tensor x = input.clone().requires_grad_();
    outputs[run] = run == 0 ? block(x) : checkpoint_activations(linear, block, x);
    outputs[run].square().sum().backward();
    gradients[run] = linear.weight.grad().clone();
    input_gradients[run] = x.grad();
  }
  CHECK(outputs[0].equal(outputs[1]));
  CHECK(gradients[0].equal(gradients[1]));
  CHECK(input_gradients[0].equal(input_gradients[1]));
}

TEST_CASE("a checkpointed block trains its parameters when its input needs no gradient") {
  const auto module = std::make_shared<Linear>(3, 3, false);
  Linear& linear = *module;
  initialize_weights(linear, 0.3, at::detail::createCPUGenerator(1));
  checkpoint_activations(
      linear, [&](const at::Tensor& x) { return linear.forward(x); }, at::ones({2, 3}))
      .sum()
      .backward();
  CHECK(linear.weight.grad().eq(2).all().item<bool>());
}

TEST_CASE("dropout acts in front of A, in training only") {
  const auto module = std::make_shared<Linear>(64, 8, false);
  Linear& linear = *module;
  initialize_weights(linear, 0.3, at::detail::createCPUGenerator(1));
  linear.set_lora(std::make_shared<LoraBranch>(linear, 2, 1.0, 0.5));
  initialize_weights(*linear.lora()->a(), 0.3, at::detail::createCPUGenerator(2));
  initialize_weights(*linear.lora()->b(), 0.3, at::detail::createCPUGenerator(3));
  const at::Tensor x = at::rand({4, 64});
  linear.eval();
  const at::Tensor calm = linear.forward(x);
  CHECK(calm.equal(linear.forward(x)));
  linear.train();
  CHECK_FALSE(calm.equal(linear.forward(x)));
  at::manual_seed(4);
  const at::Tensor dropped = at::dropout(x, 0.5, true);
  at::manual_seed(4);
  const at::Tensor expected = at::linear(x, linear.weight) +
                              linear.lora()->b()->forward(linear.lora()->a()->forward(dropped));
  check_close(linear.forward(x), expected, 1e-6);
}

TEST_CASE("runtime options that can't be met are refused") {
  CHECK(prepare_runtime({.device = "cpu"}).is_cpu());
  CHECK_THROWS_WITH(prepare_runtime({.device = "tpu"}),
                    "unknown device: got 'tpu', wanted auto, cpu, cuda or cuda:N");
  CHECK_THROWS_WITH(prepare_runtime({.dtype = "int8"}),
                    "unknown dtype: got 'int8', wanted auto, float32 or bfloat16");
  CHECK_THROWS_WITH(prepare_runtime({.threads = -1}), Contains("--threads: value out of range"));
  CHECK(peak_rss_mb() > 1);
}

}  // namespace
}  // namespace vlm

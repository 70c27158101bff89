// Optimizers against torch's and bitsandbytes' own steps; saved state goes on exactly.
#include "train/optimizer/optimizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/concat.h"

namespace vlm::train {
namespace {

const std::vector<std::string> kNames = {"large.weight", "small.weight"};
constexpr int kSteps = 6;

NamedTensors start(const Golden& golden) {
  NamedTensors parameters;
  for (const std::string& name : kNames) {
    parameters.emplace_back(name, golden["start." + name].clone().requires_grad_());
  }
  return parameters;
}

void run_step(Optimizer& optimizer, const Golden& golden, int step) {
  for (const auto& [name, parameter] : optimizer.parameters()) {
    parameter.mutable_grad() = golden[concat("grad", step, ".", name)].clone();
  }
  optimizer.step(0.01);
  optimizer.zero_grad();
}

std::unique_ptr<Optimizer> make(const Golden& golden, const std::string& kind) {
  const bool has_momentum = kind == "sgd_momentum";
  return make_optimizer(start(golden),
                        {.optim = has_momentum ? "sgd" : kind,
                         .beta1 = 0.9,
                         .beta2 = 0.99,
                         .epsilon = 1e-8,
                         .weight_decay = 0.1,
                         .momentum = has_momentum ? 0.8 : 0.0},
                        {1, 3});
}

at::Tensor state_of(const Optimizer& optimizer, const std::string& name) {
  for (const auto& [key, tensor] : optimizer.state()) {
    if (key == name) return tensor;
  }
  FAIL("no state " << name);
  return {};
}

TEST_CASE("six steps of every optimizer, with two rates, give the reference's parameters") {
  const Golden golden("optimizers/golden.safetensors");
  for (const std::string kind : {"adamw", "sgd", "sgd_momentum", "adamw_8bit"}) {
    INFO(kind);
    const auto optimizer = make(golden, kind);
    for (int step = 0; step < kSteps; ++step) run_step(*optimizer, golden, step);
    for (const auto& [name, parameter] : optimizer->parameters()) {
      INFO(name);
      check_close(parameter, golden[kind + "." + name], 1e-6);
    }
  }
}

// `kind` on parameters of `dtype`, three steps, with sizes that fill no vector evenly too.
NamedTensors run_in(at::ScalarType dtype, const std::string& kind) {
  const at::Generator random = at::detail::createCPUGenerator(3);
  NamedTensors parameters;
  for (const std::int64_t size : {17, 64, 1920}) {
    // Values that bfloat16 holds, so that both dtypes begin with the same ones.
    const at::Tensor start = at::randn({size}, random).to(at::kBFloat16).to(dtype);
    parameters.emplace_back(concat("layer", size, ".weight"), start.requires_grad_());
  }
  const bool has_momentum = kind == "sgd_momentum";
  const auto optimizer = make_optimizer(parameters,
                                        {.optim = has_momentum ? "sgd" : kind,
                                         .weight_decay = 0.1,
                                         .momentum = has_momentum ? 0.8 : 0.0},
                                        {});
  for (int step = 0; step < 3; ++step) {
    for (const auto& [name, parameter] : parameters) {
      parameter.mutable_grad() = at::randn(parameter.sizes(), random).to(at::kBFloat16).to(dtype);
    }
    optimizer->step(0.1);
  }
  return parameters;
}

TEST_CASE("steps in bfloat16 are those in float32, but for rounding") {
  for (const std::string kind : {"adamw", "sgd", "sgd_momentum", "adamw_8bit"}) {
    const NamedTensors wide = run_in(at::kFloat, kind), narrow = run_in(at::kBFloat16, kind);
    for (std::size_t i = 0; i < wide.size(); ++i) {
      INFO(kind << ", " << wide[i].first);
      check_close(narrow[i].second.to(at::kFloat), wide[i].second, 0.02);
    }
  }
}

TEST_CASE("8-bit moments are those of bitsandbytes") {
  const Golden golden("optimizers/golden.safetensors");
  const auto optimizer = make(golden, "adamw_8bit");
  for (int step = 0; step < kSteps; ++step) run_step(*optimizer, golden, step);
  // Rounding in another order may move a value across the border of two levels.
  const auto count_other = [&](const char* ours, const char* theirs) {
    return state_of(*optimizer, ours).ne(golden[theirs]).sum().item<std::int64_t>();
  };
  CHECK(count_other("exp_avg.codes.large.weight", "adamw_8bit.state1") <= 4);
  CHECK(count_other("exp_avg_sq.codes.large.weight", "adamw_8bit.state2") <= 4);
  check_close(state_of(*optimizer, "exp_avg.scales.large.weight"), golden["adamw_8bit.absmax1"]);
  check_close(state_of(*optimizer, "exp_avg_sq.scales.large.weight"), golden["adamw_8bit.absmax2"]);
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : optimizer->state()) {
    if (name.find("large") != std::string::npos) bytes += tensor.nbytes();
  }
  CHECK(static_cast<double>(bytes) / (70 * 64) < 2.04);
}

TEST_CASE("saved state goes on bit by bit") {
  const Golden golden("optimizers/golden.safetensors");
  const ScratchFolder folder;
  for (const std::string kind : {"adamw", "sgd", "sgd_momentum", "adamw_8bit"}) {
    INFO(kind);
    const auto whole = make(golden, kind);
    for (int step = 0; step < 3; ++step) run_step(*whole, golden, step);
    const auto file = folder.path() / (kind + ".safetensors");
    save_safetensors(file, whole->state());
    const auto resumed = make(golden, kind);
    {
      const c10::NoGradGuard no_grad;
      for (std::size_t i = 0; i < kNames.size(); ++i) {
        at::Tensor(resumed->parameters()[i].second).copy_(whole->parameters()[i].second);
      }
    }
    resumed->load_state(SafetensorsFile(file));
    for (int step = 3; step < kSteps; ++step) {
      run_step(*whole, golden, step);
      run_step(*resumed, golden, step);
    }
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      CHECK(resumed->parameters()[i].second.equal(whole->parameters()[i].second));
    }
  }
}

TEST_CASE("state of another optimizer is refused by name") {
  const Golden golden("optimizers/golden.safetensors");
  const ScratchFolder folder;
  const auto file = folder.path() / "state.safetensors";
  save_safetensors(file, make(golden, "adamw")->state());
  CHECK_THROWS_WITH(make(golden, "adamw_8bit")->load_state(SafetensorsFile(file)),
                    Contains("optimizer state doesn't fit the model") &&
                        Contains("no exp_avg.codes.large.weight"));
}

TEST_CASE("parameters without a gradient stay as they are") {
  const Golden golden("optimizers/golden.safetensors");
  for (const std::string kind : {"adamw", "sgd_momentum", "adamw_8bit"}) {
    const auto optimizer = make(golden, kind);
    for (const auto& [name, parameter] : optimizer->parameters()) {
      if (name == "small.weight") parameter.mutable_grad() = at::ones_like(parameter);
    }
    optimizer->step(0.1);
    CHECK(optimizer->parameters()[0].second.equal(golden["start.large.weight"]));
    CHECK_FALSE(optimizer->parameters()[1].second.equal(golden["start.small.weight"]));
  }
}

}  // namespace
}  // namespace vlm::train

// Gradients of two processes of a job, here two threads of one program, which meet over Gloo.
#include "train/jobs/gradient_sums.h"

#include <stdlib.h>

#include <exception>
#include <functional>
#include <string>
#include <thread>

#include "tests/support/free_port.h"
#include "tests/support/tensors.h"
#include "train/jobs/distributed.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kWidth = 50;

// Layers that are gone through in the order of their names.
NamedTensors make_layers(int count) {
  NamedTensors layers;
  for (int i = 0; i < count; ++i) {
    layers.emplace_back("layer" + std::to_string(i),
                        at::full({kWidth, kWidth}, 0.01 * (i + 1)).requires_grad_());
  }
  return layers;
}

void run_backward(const NamedTensors& layers, double factor, std::size_t left_out = 99) {
  at::Tensor x = at::linspace(0, factor, kWidth).unsqueeze(0);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i != left_out) x = x.matmul(layers[i].second).tanh();
  }
  x.sum().backward();
}

std::vector<at::Tensor> gradients_of(const NamedTensors& layers) {
  std::vector<at::Tensor> grads;
  for (const auto& [name, layer] : layers) grads.push_back(layer.grad());
  return grads;
}

// Runs `rank(job)` for both ranks; what one throws is thrown.
void run_ranks(const std::function<void(const Job&)>& rank) {
  ::setenv("MASTER_ADDR", "127.0.0.1", 1);
  ::setenv("MASTER_PORT", std::to_string(find_free_port()).c_str(), 1);
  std::exception_ptr failures[2];
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      try {
        const Job job({.rank = i, .size = 2, .local_rank = i, .local_size = 2}, {.timeout_s = 30});
        rank(job);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) ::unsetenv(name);
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

double factor_of(const Job& job) {
  return 1.0 + static_cast<double>(job.rank());
}

// What both ranks' gradients add up to.
std::vector<at::Tensor> sum_of_both() {
  const NamedTensors one = make_layers(4), other = make_layers(4);
  run_backward(one, 1);
  run_backward(other, 2);
  std::vector<at::Tensor> sums;
  for (std::size_t i = 0; i < one.size(); ++i) {
    sums.push_back(one[i].second.grad() + other[i].second.grad());
  }
  return sums;
}

constexpr std::int64_t kOneLayer = kWidth * kWidth * 4;  // bytes of a bucket

TEST_CASE("sums of gradients begin while backward runs, and are those of all processes") {
  const std::vector<at::Tensor> wanted = sum_of_both();
  // Catch's assertions are for one thread.
  std::vector<at::Tensor> found[2];
  std::int64_t early[2] = {};
  for (const std::int64_t bytes : {kOneLayer, 2 * kOneLayer, 100 * kOneLayer}) {
    run_ranks([&](const Job& job) {
      const NamedTensors layers = make_layers(4);
      GradientSums sums(job, layers, bytes);
      for (int step = 0; step < 2; ++step) {
        for (const auto& [name, layer] : layers) layer.mutable_grad() = at::Tensor();
        // Two passes of half the weight: the first one's sums don't begin.
        run_backward(layers, factor_of(job));
        sums.begin_last();
        run_backward(layers, factor_of(job));
        sums.finish();
      }
      found[job.rank()] = gradients_of(layers);
      early[job.rank()] = sums.begun_early();
    });
    for (int rank = 0; rank < 2; ++rank) {
      CHECK(early[rank] == (bytes == kOneLayer ? 4 : bytes == 2 * kOneLayer ? 2 : 1));
      for (std::size_t i = 0; i < 4; ++i) check_close(found[rank][i], wanted[i] * 2, 1e-6);
    }
  }
}

TEST_CASE("a gradient that one process lacks counts as 0, one that all lack stays away") {
  std::vector<at::Tensor> found[2];
  std::int64_t early[2] = {};
  const NamedTensors one = make_layers(4), other = make_layers(4);
  run_backward(one, 1, 3);
  run_backward(other, 2, 2);
  run_ranks([&](const Job& job) {
    NamedTensors layers = make_layers(4);
    layers.emplace_back("unused", at::ones({3}).requires_grad_());
    layers.emplace(layers.begin(), "unused, too", at::ones({3}).requires_grad_());
    GradientSums sums(job, layers, kOneLayer);
    NamedTensors used(layers.begin() + 1, layers.end() - 1);
    sums.begin_last();
    run_backward(used, factor_of(job), job.rank() == 0 ? 3 : 2);
    sums.finish();
    found[job.rank()] = gradients_of(layers);
    early[job.rank()] = sums.begun_early();
  });
  for (int rank = 0; rank < 2; ++rank) {
    CHECK(early[rank] == 0);  // the first bucket waits for what never comes
    CHECK_FALSE(found[rank].front().defined());
    CHECK_FALSE(found[rank].back().defined());
    for (std::size_t i = 0; i < 4; ++i) {
      at::Tensor wanted = at::zeros({kWidth, kWidth});
      for (const NamedTensors* layers : {&one, &other}) {
        if ((*layers)[i].second.grad().defined()) wanted += (*layers)[i].second.grad();
      }
      check_close(found[rank][i + 1], wanted, 1e-6);
    }
  }
}

TEST_CASE("a step that one process begins anew has each gradient once") {
  const std::vector<at::Tensor> wanted = sum_of_both();
  std::vector<at::Tensor> found[2];
  run_ranks([&](const Job& job) {
    const NamedTensors layers = make_layers(4);
    GradientSums sums(job, layers, kOneLayer);
    sums.begin_last();
    run_backward(layers, factor_of(job));
    if (job.rank() == 1) {  // as if memory had been short at the end
      for (const auto& [name, layer] : layers) layer.mutable_grad() = at::Tensor();
      sums.restart();
      run_backward(layers, factor_of(job) / 2);  // the first of two passes, whatever it gives
      sums.begin_last();
      run_backward(layers, factor_of(job) / 2);
    }
    sums.finish();
    found[job.rank()] = gradients_of(layers);
  });
  for (const auto& grads : found) {
    for (std::size_t i = 0; i < 4; ++i) check_close(grads[i], wanted[i], 1e-6);
  }
}

TEST_CASE("a gradient that changes after its sum began is noticed") {
  CHECK_THROWS_WITH(run_ranks([](const Job& job) {
                      const NamedTensors layers = make_layers(2);
                      GradientSums sums(job, layers, kOneLayer);
                      sums.begin_last();
                      run_backward(layers, 1);
                      run_backward(layers, 1);
                    }),
                    Contains("a gradient changed after it was taken for final"));
}

TEST_CASE("one process sums nothing and keeps its gradients") {
  const Job job({}, {});
  const NamedTensors layers = make_layers(2);
  GradientSums sums(job, layers, kOneLayer);
  sums.begin_last();
  run_backward(layers, 1);
  const at::Tensor grad = layers[0].second.grad();
  sums.finish();
  CHECK(layers[0].second.grad().is_same(grad));
  CHECK(sums.begun_early() == 0);
}

}  // namespace
}  // namespace vlm::train

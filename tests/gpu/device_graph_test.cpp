// Work that is recorded on the GPU and replayed.
#include "vlm/nn/gpu/device_graph.h"

#include <ATen/ATen.h>

#include "tests/support/simulated_cuda/device.h"
#include "tests/support/tensors.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

at::Tensor on_gpu(const std::vector<float>& values) {
  return at::tensor(values).to(kGpu);
}

TEST_CASE("a recording computes nothing, each replay does") {
  const at::Tensor x = on_gpu({1, 2, 3}), sum = on_gpu({0, 0, 0});
  at::Tensor product;
  DeviceGraph graph(kGpu);
  graph.capture([&] {
    sum.add_(x);
    product = at::matmul(sum, x);
    sum.narrow(0, 1, 1).copy_(x.narrow(0, 0, 1) * 10);
  });
  CHECK(sum.cpu().equal(at::zeros({3})));
  CHECK(product.item<float>() != 14);
  const auto cost = counts_of([&] { graph.replay(); });
  CHECK(cost.operators == 1);
  CHECK(cost.waits == 0);
  CHECK(sum.cpu().equal(at::tensor({1.0F, 10.0F, 3.0F})));
  CHECK(product.item<float>() == 14);
  // What lies at the addresses counts, not what was there when it was recorded.
  x.fill_(1);
  graph.replay();
  CHECK(sum.cpu().equal(at::tensor({2.0F, 10.0F, 4.0F})));
  CHECK(product.item<float>() == 17);
}

TEST_CASE("waits and copies from the host can't be recorded, and leave things as they were") {
  const at::Tensor x = on_gpu({1, 2});
  const at::Tensor pinned = at::ones({2}).pin_memory();
  const std::vector<std::function<void()>> refused = {
      [&] { x.add_(1).cpu(); }, [&] { x.add_(1).sum().item<float>(); },
      [&] { x.copy_(pinned, /*non_blocking=*/true); }};
  for (const auto& work : refused) {
    DeviceGraph graph(kGpu);
    CHECK_THROWS_WITH(graph.capture(work), Contains("not permitted when stream is capturing"));
    CHECK(x.cpu().equal(at::tensor({1.0F, 2.0F})));
  }
  CHECK(x.add(1).cpu().equal(at::tensor({2.0F, 3.0F})));
}

TEST_CASE("a replay on memory that was given back is noticed") {
  const at::Tensor sum = on_gpu({0});
  auto x = std::make_unique<at::Tensor>(on_gpu({1}));
  DeviceGraph graph(kGpu);
  graph.capture([&] { sum.add_(*x); });
  graph.replay();
  x.reset();
  const at::Tensor other = on_gpu({5});
  CHECK_THROWS_WITH(graph.replay(), Contains("memory that was given back"));
}

TEST_CASE("memory of a graph is its own until it goes") {
  const std::int64_t before = simulated_cuda::current_bytes();
  {
    const at::Tensor x = on_gpu({1, 2});
    at::Tensor result;
    DeviceGraph graph(kGpu);
    graph.capture([&] { result = (x + 1) * 2 + 3; });
    // Would take the place of the sums in between, if it were free.
    const at::Tensor other = at::full({2}, 9.0F, x.options());
    graph.replay();
    CHECK(result.cpu().equal(at::tensor({7.0F, 9.0F})));
    CHECK(other.cpu().equal(at::full({2}, 9.0F)));
  }
  CHECK(simulated_cuda::current_bytes() == before);
}

TEST_CASE("a CPU's work isn't recorded") {
  CHECK(why_no_graphs(at::kCPU) == "device cpu");
  CHECK(why_no_graphs(kGpu).empty());
  CHECK_THROWS_WITH(DeviceGraph(at::kCPU), Contains("can't be recorded: got device cpu"));
}

}  // namespace
}  // namespace vlm

// The simulated GPU itself: memory that the host can't read, counts, late copies, refusals, random
// numbers. What it stands for is CUDA; tests of the program rest on these.
#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/simulated_cuda/device.h"
#include "tests/support/thrown.h"

namespace vlm {
namespace {

using simulated_cuda::DeviceCounts;

// The signal that ends a child which does that, or 0.
int signal_of(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    const struct rlimit none = {};
    ::setrlimit(RLIMIT_CORE, &none);
    ::signal(SIGSEGV, SIG_DFL);
    ::signal(SIGABRT, SIG_DFL);
    ::close(STDERR_FILENO);
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

at::Tensor pinned(const at::Tensor& tensor) {
  return tensor.pin_memory();
}

TEST_CASE("a tensor of the device can't be read or written by the host") {
  const at::Tensor x = at::arange(8, at::TensorOptions(kGpu).dtype(at::kFloat));
  CHECK(x.device() == kGpu);
  CHECK(signal_of([&] {
          if (x.const_data_ptr<float>()[3] == 3) ::_exit(1);
        }) == SIGSEGV);
  CHECK(signal_of([&] { x.mutable_data_ptr<float>()[3] = 3; }) == SIGSEGV);
  CHECK(signal_of([&] { (void)x.cpu().const_data_ptr<float>()[3]; }) == 0);
  CHECK(x.cpu().equal(at::arange(8, at::kFloat)));
}

TEST_CASE("LibTorch takes the device for CUDA") {
  CHECK(at::hasCUDA());
  CHECK(at::getAccelerator() == at::kCUDA);
  CHECK(at::globalContext().getAcceleratorHooksInterface(at::kCUDA).deviceCount() == 1);
  CHECK_THAT(thrown_by([] { at::empty({2}, at::Device(at::kCUDA, 1)); }),
             Contains("invalid device ordinal"));
}

TEST_CASE("views share memory, and new memory holds no numbers") {
  const at::Tensor x = at::zeros({4, 6}, kGpu);
  x.t().narrow(0, 1, 2).fill_(5);
  x.select(0, 3).view({2, 3}).add_(1);
  x.unfold(1, 3, 3).select(2, 0).mul_(2);
  at::Tensor wanted = at::zeros({4, 6});
  wanted.t().narrow(0, 1, 2).fill_(5);
  wanted.select(0, 3).view({2, 3}).add_(1);
  wanted.unfold(1, 3, 3).select(2, 0).mul_(2);
  CHECK(x.cpu().equal(wanted));
  CHECK(at::empty({7}, kGpu).isnan().all().item<bool>());
  CHECK(at::empty({7}, at::TensorOptions(kGpu).dtype(at::kBFloat16)).isnan().all().item<bool>());
}

TEST_CASE("resize_ and set_ keep what is there") {
  at::Tensor x = at::arange(4, at::TensorOptions(kGpu).dtype(at::kFloat));
  x.resize_({6});
  CHECK(x.narrow(0, 0, 4).cpu().equal(at::arange(4, at::kFloat)));
  at::Tensor other = at::empty({0}, kGpu);
  other.set_(x.storage(), 1, {2}, {2});
  CHECK(other.cpu().equal(at::tensor({1.F, 3.F})));
  other.set_();
  CHECK(other.numel() == 0);
  at::Tensor out = at::empty({0}, kGpu);
  at::add_out(out, x.narrow(0, 0, 4), x.narrow(0, 0, 4));
  CHECK(out.cpu().equal(at::tensor({0.F, 2.F, 4.F, 6.F})));
}

TEST_CASE("operators, waits and copies are counted") {
  const at::Tensor host = at::ones({10});
  at::Tensor x;
  const DeviceCounts up = counts_of([&] { x = host.to(kGpu); });
  CHECK((up.uploads == 1 && up.waits == 1 && up.bytes_up == 40 && up.operators == 0));
  const DeviceCounts sum = counts_of([&] { x.add(x).mul_(2).view({2, 5}).t(); });
  CHECK((sum.operators == 2 && sum.waits == 0));
  CHECK(sum.by_name == std::map<std::string, std::int64_t>{{"add.out", 1}, {"mul.out", 1}});
  const DeviceCounts down = counts_of([&] { x.cpu(); });
  CHECK((down.downloads == 1 && down.waits == 1 && down.bytes_down == 40));
  const DeviceCounts read = counts_of([&] { x.sum().item<float>(); });
  CHECK((read.operators == 1 && read.waits == 1 && read.downloads == 1 && read.bytes_down == 4));
  for (const auto& wait : std::vector<std::function<void()>>{
           [&] { x.nonzero(); }, [&] { x.equal(x); }, [&] { x.masked_select(x > 0); },
           [&] { at::_unique2(x); }, [&] { x.index({x > 0}); },
           [&] { c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(0); }}) {
    CHECK(counts_of(wait).waits == 1);
  }
  const at::Tensor ids = at::arange(3, at::TensorOptions(kGpu).dtype(at::kLong));
  CHECK(counts_of([&] { x.index_select(0, ids).cumsum(0).argmax(); }).waits == 0);
}

TEST_CASE("a blocking copy changes types on the host, another one on the device") {
  const at::Tensor host = at::arange(6, at::kFloat).view({2, 3});
  at::Tensor x;
  const DeviceCounts up = counts_of([&] { x = host.to(kGpu, at::kBFloat16); });
  CHECK((up.bytes_up == 12 && up.operators == 0 && up.waits == 1));
  const at::Tensor late = pinned(host);
  const DeviceCounts later = counts_of([&] { x = late.to(kGpu, at::kBFloat16, true); });
  CHECK((later.bytes_up == 24 && later.operators == 1 && later.waits == 0));
  CHECK(x.to(at::kFloat).cpu().equal(host));
  CHECK(x.t().cpu().to(at::kFloat).equal(host.t()));
  CHECK(counts_of([&] { host.to(kGpu, /*non_blocking=*/true); }).pageable == 1);
}

TEST_CASE("a copy that doesn't block comes at the next wait") {
  const at::Tensor x = at::full({4}, 2.F, kGpu);
  at::Tensor down;
  CHECK(counts_of([&] { down = x.to(at::kCPU, /*non_blocking=*/true); }).waits == 0);
  CHECK(down.is_pinned());
  CHECK_FALSE(down.equal(at::full({4}, 2.F)));  // too early
  c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(0);
  CHECK(down.equal(at::full({4}, 2.F)));

  at::Tensor source = pinned(at::ones({4}));
  const at::Tensor y = source.to(kGpu, /*non_blocking=*/true);
  CHECK(y.cpu().equal(at::ones({4})));
  source.fill_(3);  // after the wait in cpu()
  const auto change_early = [&] {
    const at::Tensor z = source.to(kGpu, /*non_blocking=*/true);
    source.fill_(4);
    z.cpu();
  };
  CHECK(signal_of(change_early) == SIGABRT);
}

TEST_CASE("what CUDA refuses is refused") {
  const at::Tensor x = at::ones({4, 4}, kGpu), host = at::ones({4, 4});
  CHECK_THAT(thrown_by([&] { x.add(host); }), Contains("same device"));
  CHECK_THAT(thrown_by([&] { at::cat({x, host}); }), Contains("same device"));
  CHECK(x.mul(at::scalar_tensor(2)).sum().item<float>() == 32);
  const at::Tensor whole = x.to(at::kLong);
  CHECK_THAT(thrown_by([&] { whole.mm(whole); }), Contains("not implemented for 'Long'"));
  CHECK_THAT(thrown_by([&] { at::histogram(x, 3); }), Contains("'CUDA' backend"));
  CHECK_THAT(thrown_by([&] { at::randn({2}, at::detail::createCPUGenerator(1), kGpu); }),
             Contains("Expected a 'cuda' device type for generator"));
  CHECK_THAT(
      thrown_by([&] { at::layer_norm(x.to(at::kBFloat16), {4}, x.select(0, 0), x.select(0, 0)); }),
      Contains("expected scalar type"));
}

TEST_CASE("fused optimizers take lists of one type, on the device") {
  const auto step = [](const at::Tensor& a, const at::Tensor& b, const at::Device& steps) {
    const std::vector<at::Tensor> parameters = {a.clone(), b.clone()},
                                  grads = {a.clone(), b.clone()}, first = {a.clone(), b.clone()},
                                  second = {a.clone(), b.clone()};
    at::_fused_adamw_(parameters, grads, first, second, {},
                      {at::ones({}, steps), at::ones({}, steps)}, 0.1, 0.9, 0.99, 0.01, 1e-8, false,
                      false);
    return parameters[1].cpu();
  };
  const at::Tensor x = at::ones({5}, kGpu);
  CHECK(step(x, x * 2, kGpu).equal(step(x.cpu(), x.cpu() * 2, at::kCPU)));
  CHECK_THAT(thrown_by([&] { step(x, x.to(at::kBFloat16), kGpu); }), Contains("same dtype"));
  CHECK_THAT(thrown_by([&] { step(x, x, at::kCPU); }), Contains("one GPU"));
}

TEST_CASE("lists are one kernel when they are alike") {
  const at::Tensor x = at::ones({5}, kGpu);
  const std::vector<at::Tensor> alike = {x.clone(), x.clone(), x.clone()};
  CHECK(counts_of([&] { at::_foreach_mul_(alike, 2); }).operators == 1);
  CHECK(alike[2].sum().item<float>() == 10);
  const std::vector<at::Tensor> mixed = {x.clone(), x.to(at::kHalf)};
  CHECK(counts_of([&] { at::_foreach_norm(mixed); }).operators == 2);
  CHECK(at::_foreach_norm(alike)[0].item<float>() == Approx(std::sqrt(20.0)));
  // A copy may change the type, of all tensors alike.
  const at::Tensor half = x.to(at::kHalf);
  const std::vector<at::Tensor> halves = {half.clone(), half.clone(), half.clone()};
  CHECK(counts_of([&] { at::_foreach_copy_(halves, alike); }).operators == 1);
  CHECK(halves[1].sum().item<float>() == 10);
  CHECK(counts_of([&] { at::_foreach_copy_(mixed, {x, x}); }).operators == 2);
}

TEST_CASE("a product may be wider than its factors, and only than half types") {
  const at::Tensor a = at::randn({3, 5}).to(at::kBFloat16), b = at::randn({5, 4}).to(at::kBFloat16);
  const at::Tensor there_a = a.to(kGpu), there_b = b.to(kGpu);
  at::Tensor wide;
  CHECK(counts_of([&] { wide = at::mm(there_a, there_b, at::kFloat); }).operators == 1);
  CHECK(wide.cpu().equal(a.to(at::kFloat).mm(b.to(at::kFloat))));
  CHECK_THAT(thrown_by([&] { at::mm(there_a, there_b, at::kHalf); }),
             Contains("out_dtype must be"));
  CHECK_THAT(thrown_by([&] { at::mm(there_a, there_b.to(at::kFloat), at::kFloat); }),
             Contains("input dtypes must be the same"));
}

TEST_CASE("random numbers come from the device's own stream, and states are restored") {
  const auto generator = at::globalContext().defaultGenerator(kGpu);
  at::manual_seed(5);
  const at::Tensor state = generator.get_state();
  CHECK(state.numel() == 16);
  const at::Tensor first = at::rand({20}, kGpu).cpu(), on_host = at::rand({20});
  CHECK_FALSE(first.equal(on_host));
  CHECK_FALSE(first.equal(at::rand({20}, kGpu).cpu()));
  at::Generator same = generator;
  same.set_state(state);
  CHECK(first.equal(at::rand({20}, kGpu).cpu()));
  at::manual_seed(5);
  CHECK(on_host.equal(at::rand({20})));  // the CPU's stream wasn't touched
  const at::Tensor dropped = at::dropout(at::ones({1000}, kGpu), 0.25, true).cpu();
  CHECK(dropped.gt(0).sum().item<int>() == Approx(750).margin(60));
  CHECK(dropped.max().item<float>() == Approx(1 / 0.75));
}

TEST_CASE("memory is counted, and has a limit") {
  const std::int64_t before = simulated_cuda::current_bytes();
  simulated_cuda::reset_peak();
  {
    const at::Tensor x = at::empty({1000}, kGpu);  // 4,000 bytes: 8 blocks
    CHECK(simulated_cuda::current_bytes() - before == 4096);
    x.add(1).add_(2);
    CHECK(simulated_cuda::peak_bytes() - before == 2 * 4096);
    CHECK(at::accelerator::getDeviceStats(0).allocated_bytes[0].peak ==
          simulated_cuda::peak_bytes());
  }
  CHECK(simulated_cuda::current_bytes() == before);
  simulated_cuda::limit_bytes(before + 8192);
  CHECK(at::accelerator::getMemoryInfo(0) ==
        std::pair<std::size_t, std::size_t>(8192, static_cast<std::size_t>(before) + 8192));
  CHECK_THROWS_AS(at::empty({8193}, at::TensorOptions(kGpu).dtype(at::kByte)),
                  c10::OutOfMemoryError);
  simulated_cuda::limit_bytes(simulated_cuda::kCapacity);
  CHECK(at::empty({8193}, at::TensorOptions(kGpu).dtype(at::kByte)).numel() == 8193);
}

TEST_CASE("several threads use the device at once") {
  std::vector<std::thread> threads;
  std::vector<float> sums(4);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    threads.emplace_back([&sums, i] {
      at::Tensor x = at::zeros({100}, kGpu);
      for (int round = 0; round < 50; ++round) x = x + static_cast<float>(i);
      sums[i] = x.sum().item<float>();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(sums == std::vector<float>{0, 5000, 10000, 15000});
}

TEST_CASE("places that wait are recorded") {
  const at::Tensor x = at::ones({2}, kGpu);
  simulated_cuda::record_waits(true);
  for (int i = 0; i < 3; ++i) x.sum().item<float>();
  simulated_cuda::record_waits(false);
  x.sum().item<float>();
  CHECK_THAT(simulated_cuda::waiting_places(), Catch::Matchers::StartsWith("3 (+0x"));
}

}  // namespace
}  // namespace vlm

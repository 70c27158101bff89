// Devices by their names, and what preparing a run leaves alone.
#include "vlm/nn/runtime.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <map>
#include <memory>
#include <string>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

TEST_CASE("runtime options that can't be met are refused") {
  CHECK(prepare_runtime({.device = "cpu"}).is_cpu());
  CHECK_THROWS_WITH(prepare_runtime({.device = "tpu"}),
                    "unknown device: got 'tpu', wanted auto, cpu, cuda or cuda:N");
  CHECK_THROWS_WITH(prepare_runtime({.dtype = "int3"}),
                    "unknown dtype: got 'int3', wanted auto, float32, bfloat16, int8 or int4");
  CHECK_THROWS_WITH(prepare_runtime({.threads = -1}), Contains("--threads: value out of range"));
}

TEST_CASE("a GPU's number is one of those that are there") {
  const auto index = [](const char* name, std::int64_t count) {
    const at::Device device = choose_device(name, {.count = count});
    CHECK(device.is_cuda());
    return static_cast<int>(device.index());
  };
  CHECK(index("auto", 2) == 0);
  CHECK(index("cuda", 2) == 0);
  CHECK(index("cuda:1", 2) == 1);
  CHECK(index("cuda:10", 16) == 10);
  CHECK(choose_device("cpu", {.count = 2}).is_cpu());
  CHECK_THROWS_WITH(choose_device("cuda:7", {.count = 2}),
                    "--device cuda:7: no such GPU: got 2 GPUs, wanted cuda:0 to cuda:1");
  CHECK_THROWS_WITH(choose_device("cuda:1", {.count = 1}),
                    "--device cuda:1: no such GPU: got 1 GPU, wanted cuda:0");
  CHECK_THROWS_WITH(choose_device("cuda:4294967296", {.count = 2}), Contains("no such GPU"));
  for (const char* name : {"cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda: 1", "CUDA", "cuda1", "",
                           "cuda:99999999999999999999"}) {
    CHECK_THROWS_WITH(choose_device(name, {.count = 2}), Contains("unknown device"));
  }
}

TEST_CASE("where no GPU can be used, auto is the CPU and a GPU by name an error") {
  const Gpus none{.reason = "libtorch_cuda.so: cannot open shared object file"};
  CHECK(choose_device("auto", none).is_cpu());
  CHECK_THROWS_WITH(choose_device("cuda:0", none),
                    "--device cuda:0: CUDA can't be used: got libtorch_cuda.so: cannot open shared "
                    "object file (scripts/setup --cuda installs the libraries)");
}

TEST_CASE("preparing a run leaves random numbers alone, and threads that nobody asked about") {
  const auto state = [] { return at::detail::getDefaultCPUGenerator().get_state(); };
  at::manual_seed(17);
  at::rand({5});
  const at::Tensor before = state();
  const int threads = at::get_num_threads();
  for (const std::optional<std::int64_t> seed : {std::optional<std::int64_t>{}, {3}}) {
    prepare_runtime({.device = "cpu", .seed = seed});
    CHECK(state().equal(before));
    CHECK(at::get_num_threads() == threads);
  }
  prepare_runtime({.device = "cpu", .threads = threads + 1});
  CHECK(at::get_num_threads() == threads + 1);
  at::set_num_threads(threads);
}

// How often each operator ran while it lives, by its name in LibTorch.
class CallCounts {
 public:
  CallCounts()
      : handle_(at::addThreadLocalCallback(
            at::RecordFunctionCallback([](const at::RecordFunction& call)
                                           -> std::unique_ptr<at::ObserverContext> {
              ++counts()[call.name()];
              return nullptr;
            }).scopes({at::RecordScope::FUNCTION}))) {
    counts().clear();
  }
  ~CallCounts() { at::removeCallback(handle_); }

  int of(const std::string& name) const { return counts()["aten::" + name]; }

 private:
  static std::map<std::string, int>& counts() {
    static std::map<std::string, int> all;
    return all;
  }

  at::CallbackHandle handle_;
};

// What goes wrong otherwise can't be brought about at will: in one of ten processes, the second
// thread's half of a first cosine was wrong in its fourth digit.
TEST_CASE("functions that MKL computes are called once before threads share their work") {
  const CallCounts counts;
  prepare_runtime({.device = "cpu"});
  for (const char* name : {"acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log",
                           "log10", "log2", "sin", "sqrt", "tan", "tanh", "trunc"}) {
    INFO(name);
    CHECK(counts.of(name) == 2);  // of float and of double
  }
}

}  // namespace
}  // namespace vlm

#include "vlm/nn/runtime.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/acos.h>
#include <ATen/ops/asin.h>
#include <ATen/ops/atan.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/erfc.h>
#include <ATen/ops/erfinv.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log10.h>
#include <ATen/ops/log2.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tan.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/trunc.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm {
namespace {

bool has_gpu_driver() {
  return std::filesystem::exists("/dev/nvidiactl") || std::filesystem::exists("/dev/dxg");
}

// Whether the user has hidden the GPUs, as CUDA's programs understand it.
bool are_gpus_hidden() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible && (*visible == '\0' || *visible == '-');
}

// Opens the CUDA part of LibTorch. Says why it can't, or nothing.
std::string open_cuda() {
  // A program around may have it already. Asked so, LibTorch doesn't keep the answer.
  if (at::CUDAHooksRegistry()->Has("CUDAHooks")) return "";
  if (!has_gpu_driver()) return "the machine has no NVIDIA device";
  if (are_gpus_hidden()) return "CUDA_VISIBLE_DEVICES hides all GPUs";
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return "";
  const char* reason = ::dlerror();
  return reason ? reason : "libtorch_cuda.so can't be opened";
}

Gpus find_gpus() {
  std::string reason = open_cuda();
  if (!reason.empty()) return {.reason = std::move(reason)};
  if (!at::hasCUDA()) return {.reason = "CUDA finds no device"};
  return {.count = at::detail::getCUDAHooks().getNumGPUs()};
}

// N of "cuda:N"; 0 of "cuda".
std::int64_t parse_index(const std::string& name) {
  constexpr std::string_view kPrefix = "cuda:";
  if (name == "cuda") return 0;
  std::int64_t index = -1;
  const char* end = name.data() + name.size();
  if (name.starts_with(kPrefix)) {
    const auto [last, code] = std::from_chars(name.data() + kPrefix.size(), end, index);
    if (code != std::errc() || last != end) index = -1;
  }
  if (index >= 0) return index;
  throw Error(
      {.what = "unknown device", .got = "'" + name + "'", .wanted = "auto, cpu, cuda or cuda:N"});
}

constexpr const char* kInstallHint = "scripts/setup --cuda installs the libraries";

// Calls the functions that LibTorch leaves to MKL (ATen/cpu/vml.h), each on one value and so on one
// thread. MKL chooses a function's kernel when it is first called. If several threads make that
// call together, one of them may compute its part with a kernel whose error is 1e-4, without a word
// (pytorch/pytorch#188792; oneMKL before 2025.0, which LibTorch's wheel holds).
void load_vector_functions() {
  const c10::InferenceMode no_graph;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::full({1}, 0.5, dtype);
    for (const auto function :
         {at::acos, at::asin, at::atan, at::cos, at::erf, at::erfc, at::erfinv, at::exp, at::log,
          at::log10, at::log2, at::sin, at::sqrt, at::tan, at::tanh, at::trunc}) {
      function(x);
    }
  }
}

}  // namespace

at::Device choose_device(const std::string& name, const Gpus& gpus) {
  if (name == "cpu") return at::kCPU;
  if (name == "auto") return gpus.count > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  const std::int64_t index = parse_index(name);
  if (gpus.count == 0) {
    throw Error({.what = "CUDA can't be used",
                 .where = "--device " + name,
                 .got = gpus.reason,
                 .hint = kInstallHint});
  }
  if (index >= gpus.count) {
    throw Error({.what = "no such GPU",
                 .where = "--device " + name,
                 .got = concat(gpus.count, gpus.count == 1 ? " GPU" : " GPUs"),
                 .wanted = gpus.count == 1 ? "cuda:0" : concat("cuda:0 to cuda:", gpus.count - 1)});
  }
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

at::Device prepare_runtime(const RuntimeOptions& options) {
  constexpr std::array<std::string_view, 5> kDtypes = {"auto", "float32", "bfloat16", "int8",
                                                       "int4"};
  if (std::find(kDtypes.begin(), kDtypes.end(), options.dtype) == kDtypes.end()) {
    throw Error({.what = "unknown dtype",
                 .got = "'" + options.dtype + "'",
                 .wanted = "auto, float32, bfloat16, int8 or int4"});
  }
  if (options.threads < 0 || options.threads > 1024) {
    throw Error({.what = "value out of range", .where = "--threads", .wanted = "0 to 1024"});
  }
  if (options.threads > 0) at::set_num_threads(static_cast<int>(options.threads));
  load_vector_functions();
  // Found also when the CPU is asked for: LibTorch keeps the first answer to whether there is CUDA,
  // and the next model may be for a GPU.
  const Gpus gpus = find_gpus();
  const at::Device device = choose_device(options.device, gpus);
  if (options.device == "auto" && gpus.count == 0) {
    const bool is_surprise = has_gpu_driver() && !are_gpus_hidden();
    is_surprise ? log_warning(concat("a GPU is there but the CPU is used: ", gpus.reason, " (",
                                     kInstallHint, "; --device cpu asks for the CPU)"))
                : log_debug("CPU is used: " + gpus.reason);
  }
  const bool is_narrow = options.dtype == "int8" || options.dtype == "int4";
  if (is_narrow && !device.is_cpu()) {
    throw Error({.what = concat(options.dtype == "int8" ? 8 : 4, " bits are for CPUs"),
                 .where = "--dtype " + options.dtype,
                 .got = "device " + device.str(),
                 .wanted = "--device cpu"});
  }
  return device;
}

void return_freed_memory() {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_ARENA_MAX, 2);
#endif
}

void trim_heap() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

double peak_rss_mb() {
  // getrusage's figure is also that of the program that started this one, if that was larger.
  std::ifstream status("/proc/self/status");
  status.imbue(std::locale::classic());
  for (std::string word; status >> word;) {
    double kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  struct rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

}  // namespace vlm

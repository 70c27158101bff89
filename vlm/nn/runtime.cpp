#include "vlm/nn/runtime.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm {
namespace {

// Opens the CUDA part of LibTorch; returns why not, or nothing. It must be open before anything
// asks for CUDA: LibTorch keeps the answer that at::hasCUDA gives first.
std::string open_cuda() {
  if (!std::filesystem::exists("/dev/nvidiactl") && !std::filesystem::exists("/dev/dxg")) {
    return "the machine has no NVIDIA device";
  }
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = ::dlerror();
    return reason ? reason : "libtorch_cuda.so can't be opened";
  }
  return at::hasCUDA() ? "" : "CUDA finds no device";
}

at::Device choose_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const std::string reason = open_cuda();
  if (name == "auto") {
    if (!reason.empty()) log_debug("CPU is used: " + reason);
    return reason.empty() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  }
  const bool has_index = name.size() == 6 && name.starts_with("cuda:") && std::isdigit(name[5]);
  if (name != "cuda" && !has_index) {
    throw Error(
        {.what = "unknown device", .got = "'" + name + "'", .wanted = "auto, cpu, cuda or cuda:N"});
  }
  if (!reason.empty()) {
    throw Error({.what = "CUDA can't be used",
                 .where = "--device " + name,
                 .got = reason,
                 .hint = "scripts/setup --cuda installs the libraries"});
  }
  return at::Device(at::kCUDA, has_index ? static_cast<at::DeviceIndex>(name[5] - '0') : 0);
}

}  // namespace

at::Device prepare_runtime(const RuntimeOptions& options) {
  constexpr std::array<std::string_view, 4> kDtypes = {"auto", "float32", "bfloat16", "int8"};
  if (std::find(kDtypes.begin(), kDtypes.end(), options.dtype) == kDtypes.end()) {
    throw Error({.what = "unknown dtype",
                 .got = "'" + options.dtype + "'",
                 .wanted = "auto, float32, bfloat16 or int8"});
  }
  if (options.threads < 0 || options.threads > 1024) {
    throw Error({.what = "value out of range", .where = "--threads", .wanted = "0 to 1024"});
  }
  if (options.threads > 0) at::set_num_threads(static_cast<int>(options.threads));
  const at::Device device = choose_device(options.device);
  if (options.dtype == "int8" && !device.is_cpu()) {
    throw Error({.what = "8 bits are for CPUs",
                 .where = "--dtype int8",
                 .got = "device " + device.str(),
                 .wanted = "--device cpu"});
  }
  at::manual_seed(static_cast<std::uint64_t>(options.seed.value_or(0)));
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
  for (std::string word; status >> word;) {
    double kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  struct rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

}  // namespace vlm

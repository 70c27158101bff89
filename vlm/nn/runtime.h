// Device and threads of a run; CUDA is opened at run time when its libraries are there.
//
// The program links LibTorch's CPU part alone. Where `scripts/setup --cuda` has put the CUDA
// libraries beside it and the machine has a GPU, opening libtorch_cuda registers the CUDA kernels
// in the same process.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace vlm {

struct RuntimeOptions {
  std::string device = "auto";       // auto, cpu, cuda, cuda:N
  std::string dtype = "auto";        // auto, float32, bfloat16, int8 (on a CPU)
  std::int64_t threads = 0;          // 0: as many as the machine has
  std::optional<std::int64_t> seed;  // of everything random; unset: the default of the command
};

// Sets the number of threads when one is asked for; returns the device. Warns when a GPU is there
// and can't be used; throws Error when it was asked for. LibTorch's random generators belong to the
// program around and stay as they are: whoever draws has a generator of its own, or seeds them.
at::Device prepare_runtime(const RuntimeOptions& options);

struct Gpus {
  std::int64_t count = 0;
  std::string reason = {};  // why there are none
};

// The device of that name where there are those GPUs.
at::Device choose_device(const std::string& name, const Gpus& gpus);

// Makes the allocator give freed tensors of 1 MB and more back to the system at once. For training,
// whose activations come and go in layers: a heap would keep holes of them, up to a sixth of the
// peak.
void return_freed_memory();

// Gives what is free of the heap back to the system, once: after encoding pictures, whose
// activations leave holes that nothing after them fills.
void trim_heap();

// Largest resident set of this process so far, in MB (10⁶ bytes).
double peak_rss_mb();

}  // namespace vlm

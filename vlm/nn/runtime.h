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
  std::string dtype = "auto";        // auto, float32, bfloat16; on a CPU int8, int4
  std::int64_t threads = 0;          // 0: as many as the machine has
  std::optional<std::int64_t> seed;  // of everything random; unset: the default of the command
};

// Sets the number of threads when one is asked for and makes results independent of how threads
// meet in their first pass; returns the device. Comes before any other work with tensors. Warns
// when a GPU is there and can't be used; throws Error when it was asked for. Leaves LibTorch's
// global random generators as they are; they belong to the calling program.
at::Device prepare_runtime(const RuntimeOptions& options);

struct Gpus {
  std::int64_t count = 0;
  std::string reason = {};  // why there are none
};

// The device named "auto", "cpu", "cuda" or "cuda:N" on a machine with these GPUs. Throws Error for
// a GPU that isn't there.
at::Device choose_device(const std::string& name, const Gpus& gpus);

// Makes the allocator give freed tensors of 1 MB and more back to the system at once. For training:
// the freed activations would otherwise stay as unused holes in the heap, up to a sixth of the peak
// memory.
void return_freed_memory();

// Gives the free memory of the heap back to the system, once. Called after encoding pictures, whose
// freed activations are not needed again.
void trim_heap();

// Largest resident set of this process so far, in MB (10⁶ bytes).
double peak_rss_mb();

}  // namespace vlm

// Device, threads and seed of a run; CUDA is opened at run time when its libraries are there.
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
  std::string dtype = "auto";        // auto, float32, bfloat16
  std::int64_t threads = 0;          // 0: as many as the machine has
  std::optional<std::int64_t> seed;  // of everything random; unset: the default of the command
};

// Sets threads and the default generators' seed; returns the device. Throws Error when a GPU is
// asked for and there is none, saying why.
at::Device prepare_runtime(const RuntimeOptions& options);

// What the allocator does with freed tensors of 1 MB and more, for training, whose activations come
// and go in layers.
enum class FreedMemory {
  kReturn,  // goes back to the system at once: no holes in a heap, up to a sixth of the peak
  kKeep     // up to 32 MB stay for the next one: no fresh pages, up to a third of the time
};
void set_freed_memory(FreedMemory choice);

// Gives what is free of the heap back to the system, once: after encoding pictures, whose
// activations leave holes that nothing after them fills.
void trim_heap();

// Largest resident set of this process so far, in MB (10⁶ bytes).
double peak_rss_mb();

}  // namespace vlm

// Copies between host and device, and waits.
//
// A copy that doesn't block is simulated late. Into pinned memory: the target holds 0xEE bytes
// until the next wait. From pinned memory: at the next wait the program ends when the source was
// changed since. So using memory too early shows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace simulated_cuda {

at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool non_blocking);
at::Scalar read_value(const at::Tensor& value);

// The host waits: counted, and copies on their way arrive.
void wait_for_device();

// Copies on their way arrive, without a wait of the host.
void end_copies();

// The same for those from or to that host memory, which is given back.
void end_copies_of(const void* begin, std::size_t size);

}  // namespace simulated_cuda

// What CUDA refuses and kernels of CPUs would take, and which operators make the host wait.
#pragma once

#include <ATen/core/stack.h>

#include <string>
#include <vector>

namespace c10 {
class OperatorHandle;
}

namespace simulated_cuda {

// Arguments of one operator, still those of the device.
struct Call {
  std::string space, name, overload;  // "aten", "addmm", "out"
  std::vector<c10::IValue> arguments;

  std::string text() const { return overload.empty() ? name : name + "." + overload; }
};

Call describe(const c10::OperatorHandle& op, const torch::jit::Stack& stack);

// Throws what CUDA would throw.
void refuse_what_cuda_refuses(const Call& call);

// Whether the host waits, as the size of the result, or a value, is in device memory.
bool makes_host_wait(const Call& call);

// Kernels that CUDA starts: one, or one a tensor for lists that aren't alike.
std::int64_t launches_of(const Call& call);

// All tensors on one device; host tensors without dimensions count as numbers.
void check_one_device(const std::vector<at::Tensor>& tensors);

}  // namespace simulated_cuda

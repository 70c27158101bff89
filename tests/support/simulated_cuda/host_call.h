// Runs operators of device tensors as kernels of the CPU.
#pragma once

#include <ATen/core/stack.h>

namespace c10 {
class OperatorHandle;
}

namespace simulated_cuda {

// For any operator: arguments become host tensors over the same bytes, the CPU's kernel runs, and
// what it gives becomes device tensors. A boxed kernel.
void call_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// Whether skip_products is on, for kernels that have products inside.
bool are_products_off();

}  // namespace simulated_cuda

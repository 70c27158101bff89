// The simulated GPU in tests.
#pragma once

#include <c10/core/Device.h>

#include <functional>

#include "tests/support/simulated_cuda/simulated_cuda.h"

namespace vlm {

inline const c10::Device kGpu(c10::kCUDA, 0);

// What the device counts while `work` runs.
inline simulated_cuda::DeviceCounts counts_of(const std::function<void()>& work) {
  const simulated_cuda::DeviceCounts before = simulated_cuda::counts();
  work();
  return simulated_cuda::counts() - before;
}

}  // namespace vlm

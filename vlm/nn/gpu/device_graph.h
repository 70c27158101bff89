// Work of a GPU that is recorded once and then asked for as a whole: one launch in place of some
// hundred, whose time the host needs for small models.
//
//   capture(work): operators are noted, nothing is computed ─► replay(), replay(), …
//
// A replay runs the same kernels on the same addresses. So what `work` reads and writes from
// outside must live as long as the graph; memory that it takes is kept for the graph. It may not
// wait for the GPU, nor copy between host and device. This is at::cuda::CUDAGraph of LibTorch 2.11,
// found in the process at run time, as its header needs CUDA's own.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <string>

namespace vlm {

class DeviceGraph {
 public:
  // Throws Error where why_no_graphs says something.
  explicit DeviceGraph(c10::Device device);

  // Call it once. If it throws, the graph can't be replayed, and the device is as before.
  void capture(const std::function<void()>& work);
  // On the current stream; doesn't wait.
  void replay();

 private:
  struct Deleter {
    void operator()(void* graph) const;
  };
  c10::Device device_;
  std::unique_ptr<void, Deleter> graph_;
};

// Why nothing can be recorded for this device; empty: it can.
std::string why_no_graphs(c10::Device device);

}  // namespace vlm

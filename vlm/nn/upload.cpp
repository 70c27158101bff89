#include "vlm/nn/upload.h"

namespace vlm {

at::Tensor upload(const at::Tensor& tensor, at::Device device) {
  if (!tensor.is_cpu() || device.is_cpu()) return tensor.to(device);
  // LibTorch keeps pinned memory that is given back until copies from it are over.
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace vlm

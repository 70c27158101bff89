#include "vlm/nn/upload.h"

#include <ATen/ops/tensor.h>

namespace vlm {

at::Tensor upload(const at::Tensor& tensor, at::Device device) {
  if (!tensor.is_cpu() || device.is_cpu()) return tensor.to(device);
  // LibTorch keeps pinned memory that is given back until copies from it are over.
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

std::vector<at::Tensor> upload_lists(const std::vector<std::vector<std::int64_t>>& lists,
                                     at::Device device) {
  std::vector<std::int64_t> all;
  for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
  const at::Tensor there = upload(at::tensor(all, at::kLong), device);
  std::vector<at::Tensor> parts;
  std::int64_t begin = 0;
  for (const auto& list : lists) {
    parts.push_back(there.narrow(0, begin, std::ssize(list)));
    begin += std::ssize(list);
  }
  return parts;
}

}  // namespace vlm

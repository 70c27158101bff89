// A host tensor on the device of a model, without waiting for that device: through pinned memory,
// where the device is a GPU. A plain `to(device)` makes the host wait until all that was asked of
// the GPU before is done.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vlm {

// Of a CPU, and for what is there already: the tensor itself.
at::Tensor upload(const at::Tensor& tensor, at::Device device);

// Each list as a tensor [n] int64, all by one upload.
std::vector<at::Tensor> upload_lists(const std::vector<std::vector<std::int64_t>>& lists,
                                     at::Device device);

}  // namespace vlm

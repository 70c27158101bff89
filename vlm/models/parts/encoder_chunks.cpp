#include "vlm/models/parts/encoder_chunks.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <vector>

namespace vlm {

std::int64_t fitting_patches(std::int64_t hidden_size, std::int64_t intermediate_size,
                             std::int64_t bytes) {
  const std::int64_t floats = 8 * hidden_size + 2 * intermediate_size;
  return std::max<std::int64_t>(bytes / (floats * 4), 1);
}

at::Tensor encode_in_chunks(std::int64_t units, std::int64_t most,
                            const std::function<at::Tensor(std::int64_t, std::int64_t)>& encode) {
  std::vector<at::Tensor> features;
  for (std::int64_t begin = 0; begin < units; begin += most) {
    features.push_back(encode(begin, std::min(most, units - begin)));
  }
  return features.size() == 1 ? features[0] : at::cat(features);
}

}  // namespace vlm

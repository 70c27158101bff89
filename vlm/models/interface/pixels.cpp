#include "vlm/models/interface/pixels.h"

#include <ATen/ops/cat.h>

#include "vlm/core/concat.h"
#include "vlm/io/tensor_digest.h"

namespace vlm {

std::string Pixels::digest() const {
  std::string text = digest_tensor(values);
  for (const PatchGrid& grid : grids) {
    text += concat(" ", grid.frames, "x", grid.height, "x", grid.width);
  }
  return text;
}

Pixels join_pixels(const std::vector<Pixels>& parts) {
  Pixels joined;
  std::vector<at::Tensor> values;
  for (const Pixels& part : parts) {
    if (part.empty()) continue;
    values.push_back(part.values);
    joined.tokens += part.tokens;
    joined.grids.insert(joined.grids.end(), part.grids.begin(), part.grids.end());
  }
  if (!values.empty()) joined.values = values.size() == 1 ? values[0] : at::cat(values);
  return joined;
}

}  // namespace vlm

#include "vlm/models/interface/pixels.h"

#include <ATen/ops/cat.h>

#include <utility>

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

std::vector<Pixels> split_pixels(const Pixels& pixels) {
  std::vector<Pixels> parts;
  const std::int64_t units = pixels.units();
  const auto add = [&](std::int64_t begin, std::int64_t count, std::vector<PatchGrid> grids) {
    parts.push_back({.values = pixels.values.narrow(0, begin, count),
                     .tokens = pixels.tokens * count / units,
                     .grids = std::move(grids)});
  };
  if (pixels.grids.empty()) {
    for (std::int64_t i = 0; i < units; ++i) add(i, 1, {});
    return parts;
  }
  std::int64_t begin = 0;
  for (const PatchGrid& grid : pixels.grids) {
    add(begin, grid.patches(), {grid});
    begin += grid.patches();
  }
  return parts;
}

}  // namespace vlm

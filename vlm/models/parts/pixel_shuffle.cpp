#include "vlm/models/parts/pixel_shuffle.h"

#include <c10/util/Exception.h>

#include <cmath>

namespace vlm {

at::Tensor shuffle_pixels(const at::Tensor& patches, std::int64_t scale_factor) {
  const std::int64_t n = patches.size(0), c = patches.size(2), s = scale_factor;
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(double(patches.size(1)))));
  TORCH_CHECK(side * side == patches.size(1) && side % s == 0, "pixel shuffle by ", s,
              " needs a square grid divisible by it, got ", patches.size(1), " patches");
  const std::int64_t cells = side / s;
  return patches.view({n, cells, s, cells, s, c})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({n, cells * cells, s * s * c});
}

}  // namespace vlm

// Neighbouring patches of a tile joined into one token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vlm {

// [N, G·G, C] → [N, (G/s)², C·s²]: each s × s neighbourhood becomes one token, its patches row by
// row.
at::Tensor shuffle_pixels(const at::Tensor& patches, std::int64_t scale_factor);

}  // namespace vlm

#include "vlm/nn/rotary.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>

namespace vlm {

RotaryTable make_rotary_table(const at::Tensor& positions, std::int64_t head_dim, double theta,
                              at::ScalarType dtype) {
  const at::Tensor exponents =
      at::arange(0, head_dim, 2, positions.options().dtype(at::kLong)).to(at::kFloat) /
      static_cast<double>(head_dim);
  const at::Tensor inverse_frequency = 1.0 / at::pow(theta, exponents);  // [D/2]
  const at::Tensor angles =
      positions.to(at::kFloat).unsqueeze(-1) * inverse_frequency;      // [B,T,D/2]
  const at::Tensor full = at::cat({angles, angles}, -1).unsqueeze(1);  // [B,1,T,D]
  return {full.cos().to(dtype), full.sin().to(dtype)};
}

at::Tensor apply_rotary(const at::Tensor& q, const RotaryTable& table) {
  const std::int64_t half = q.size(-1) / 2;
  const at::Tensor rotated = at::cat({-q.narrow(-1, half, half), q.narrow(-1, 0, half)}, -1);
  return q * table.cos + rotated * table.sin;
}

}  // namespace vlm

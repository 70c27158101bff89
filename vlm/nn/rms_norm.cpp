#include "vlm/nn/rms_norm.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

#include "vlm/io/parallel.h"
#include "vlm/nn/clones.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceElements = 32 * 1024;  // that a thread takes at a time
constexpr std::int64_t kLanes = 16;                 // sums kept side by side

VLM_CLONES void normalize_row(const float* x, const float* weight, std::int64_t width, double eps,
                              float* y) {
  float sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  }
  double total = 0;
  for (const float sum : sums) total += sum;
  for (; i < width; ++i) total += x[i] * x[i];
  const auto scale = static_cast<float>(1.0 / std::sqrt(total / static_cast<double>(width) + eps));
  for (i = 0; i < width; ++i) y[i] = weight[i] * (x[i] * scale);
}

}  // namespace

bool can_normalize_rows(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat;
}

at::Tensor normalize_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty_like(from);
  const std::int64_t width = weight.size(0), rows = from.numel() / width;
  const std::int64_t step = std::max<std::int64_t>(kPieceElements / width, 1);
  const float* in = from.const_data_ptr<float>();
  const float* scale = weight.const_data_ptr<float>();
  float* out = to.mutable_data_ptr<float>();
  run_pieces((rows + step - 1) / step, [&](std::int64_t piece) {
    for (std::int64_t row = piece * step; row < std::min((piece + 1) * step, rows); ++row) {
      normalize_row(in + row * width, scale, width, eps, out + row * width);
    }
  });
  return to;
}

}  // namespace vlm

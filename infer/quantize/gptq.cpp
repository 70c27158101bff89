#include "infer/quantize/gptq.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "vlm/nn/cpu/int4/int4_weight.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kColumns = 128;  // that are coded before the rest takes over their errors
constexpr double kDamping = 0.01;       // of the diagonal's mean, at first
constexpr int kMostTries = 8;           // each with ten times as much

// U of Uᵀ U = H⁻¹, for inputs in the order in which they are coded.
at::Tensor factor_inverse(at::Tensor sums) {
  const at::Tensor diagonal = sums.diagonal();
  double damping = kDamping * std::max(diagonal.mean().item<double>(), 1e-12);
  for (int i = 0; i < kMostTries; ++i, damping *= 10) {
    diagonal.add_(damping);
    const auto [lower, failed] = at::linalg_cholesky_ex(sums);
    if (failed.item<int>() != 0) continue;
    const auto [upper, failed_too] =
        at::linalg_cholesky_ex(at::cholesky_inverse(lower), /*upper=*/true);
    if (failed_too.item<int>() == 0) return upper;
  }
  return {};
}

}  // namespace

EvenCodes gptq_codes(const at::Tensor& weight, const at::Tensor& sums) {
  const at::Tensor importance = sums.diagonal().contiguous();
  EvenCodes coded = search_even_codes(weight, importance);
  const at::Tensor order = importance.argsort(/*dim=*/0, /*descending=*/true);
  const at::Tensor upper = factor_inverse(sums.index_select(0, order).index_select(1, order));
  if (!upper.defined()) return coded;  // inputs of no finite size: rounding to the nearest
  const std::int64_t in = weight.size(1);
  const at::Tensor groups = order.div(kInt4Group, "floor");
  // Inputs by outputs, so that what is worked on lies in a row.
  at::Tensor left = weight.to(at::kFloat).t().index_select(0, order).contiguous();
  const at::Tensor scales = coded.scales.t().index_select(0, groups).contiguous();
  const at::Tensor factors = at::where(scales.eq(0), at::zeros_like(scales), scales.reciprocal());
  at::Tensor levels = at::empty_like(left), errors = at::empty_like(left);
  for (std::int64_t begin = 0; begin < in; begin += kColumns) {
    const std::int64_t end = std::min(begin + kColumns, in);
    for (std::int64_t i = begin; i < end; ++i) {
      const at::Tensor level = levels.select(0, i);
      level.copy_(left.select(0, i) * factors.select(0, i)).round_().clamp_(-8, 7);
      const at::Tensor row = upper.select(0, i);
      const at::Tensor error = errors.select(0, i);
      error.copy_(left.select(0, i) - level * scales.select(0, i)).div_(row.select(0, i));
      if (i + 1 == end) continue;
      left.narrow(0, i + 1, end - i - 1)
          .sub_(row.narrow(0, i + 1, end - i - 1).unsqueeze(1) * error.unsqueeze(0));
    }
    if (end == in) break;
    left.narrow(0, end, in - end)
        .addmm_(upper.narrow(0, begin, end - begin).narrow(1, end, in - end).t(),
                errors.narrow(0, begin, end - begin), /*beta=*/1, /*alpha=*/-1);
  }
  const at::Tensor back = order.argsort();
  coded.codes = levels.index_select(0, back).t().add(8).to(at::kByte).contiguous();
  return coded;
}

double output_error(const at::Tensor& weight, const at::Tensor& coded, const at::Tensor& sums) {
  const auto energy = [&](const at::Tensor& matrix) {
    if (!sums.defined()) return matrix.square().sum().item<double>();
    return (matrix.matmul(sums) * matrix).sum().item<double>();
  };
  const at::Tensor wide = weight.to(at::kFloat);
  const double whole = energy(wide);
  return whole > 0 ? energy(wide - coded) / whole : 0;
}

}  // namespace vlm::infer

#include "vlm/nn/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/lanes.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceElements = 32 * 1024;  // that a thread takes at a time

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

// With s = rsqrt(mean(x²) + eps) and g = weight · dy: dx = s g − x s³ mean(g x).
VLM_CLONES void backward_row(const float* x, const float* weight, const float* dy,
                             std::int64_t width, double eps, float* dx) {
  float squares[kLanes] = {}, products[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = x[i + lane];
      squares[lane] += value * value;
      products[lane] += value * weight[i + lane] * dy[i + lane];
    }
  }
  double square = 0, product = 0;
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    square += squares[lane];
    product += products[lane];
  }
  for (; i < width; ++i) {
    square += x[i] * x[i];
    product += x[i] * weight[i] * dy[i];
  }
  const auto size = static_cast<double>(width);
  const double scale = 1.0 / std::sqrt(square / size + eps);
  const auto straight = static_cast<float>(scale);
  const auto back = static_cast<float>(scale * scale * scale * product / size);
  for (i = 0; i < width; ++i) dx[i] = straight * weight[i] * dy[i] - back * x[i];
}

// Calls work(row) for all rows, pieces of them on all threads.
template <typename Work>
void over_rows(std::int64_t rows, std::int64_t width, const Work& work) {
  const std::int64_t step = std::max<std::int64_t>(kPieceElements / width, 1);
  run_pieces((rows + step - 1) / step, [&](std::int64_t piece) {
    for (std::int64_t row = piece * step; row < std::min((piece + 1) * step, rows); ++row) {
      work(row);
    }
  });
}

at::Tensor normalize(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty_like(from);
  const std::int64_t width = weight.size(0);
  const float* in = from.const_data_ptr<float>();
  const float* scale = weight.const_data_ptr<float>();
  float* out = to.mutable_data_ptr<float>();
  over_rows(from.numel() / width, width, [&](std::int64_t row) {
    normalize_row(in + row * width, scale, width, eps, out + row * width);
  });
  return to;
}

class NormalizeRows : public torch::autograd::Function<NormalizeRows> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, double eps) {
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    return normalize(x, weight, eps);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor x = saved[0].contiguous(), dy = grads[0].contiguous();
    const at::Tensor& weight = saved[1];
    const double eps = context->saved_data["eps"].toDouble();
    at::Tensor dx = at::empty_like(x), dweight;
    const std::int64_t width = weight.size(0);
    const float *in = x.const_data_ptr<float>(), *scale = weight.const_data_ptr<float>(),
                *from = dy.const_data_ptr<float>();
    float* to = dx.mutable_data_ptr<float>();
    over_rows(x.numel() / width, width, [&](std::int64_t row) {
      const std::int64_t at = row * width;
      backward_row(in + at, scale, from + at, width, eps, to + at);
    });
    if (weight.requires_grad()) {
      const at::Tensor unit = at::ones_like(weight);
      dweight = (dy * normalize(x, unit, eps)).view({-1, width}).sum(0);
    }
    return {dx, dweight, at::Tensor()};
  }
};

}  // namespace

bool can_normalize_rows(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat;
}

at::Tensor normalize_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const bool is_recorded =
      c10::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return is_recorded ? NormalizeRows::apply(x, weight, eps) : normalize(x, weight, eps);
}

}  // namespace vlm

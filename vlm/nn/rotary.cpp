#include "vlm/nn/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/clones.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceFloats = 32 * 1024;  // that a thread takes at a time

// One head's `width` numbers at one place. `turn` -1 rotates back: the gradient.
VLM_CLONES void rotate_row(const float* q, const float* cos, const float* sin, std::int64_t width,
                           float turn, float* to) {
  const std::int64_t half = width / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = q[i], b = q[half + i];
    to[i] = a * cos[i] - b * (turn * sin[i]);
    to[half + i] = b * cos[half + i] + a * (turn * sin[half + i]);
  }
}

at::Tensor rotate(const at::Tensor& q, const at::Tensor& cos, const at::Tensor& sin, float turn) {
  const at::Tensor from = q.stride(3) == 1 ? q : q.contiguous();
  at::Tensor to = at::empty_like(from);
  const std::int64_t heads = q.size(1), tokens = q.size(2), width = q.size(3);
  const float *in = from.const_data_ptr<float>(), *c = cos.const_data_ptr<float>(),
              *s = sin.const_data_ptr<float>();
  float* out = to.mutable_data_ptr<float>();
  const std::int64_t table_step = cos.size(0) == 1 ? 0 : tokens * width;
  const std::int64_t rows = q.size(0) * tokens;
  const std::int64_t step = std::max<std::int64_t>(kPieceFloats / (heads * width), 1);
  run_pieces((rows + step - 1) / step, [&](std::int64_t piece) {
    for (std::int64_t row = piece * step; row < std::min((piece + 1) * step, rows); ++row) {
      const std::int64_t b = row / tokens, t = row % tokens, at = b * table_step + t * width;
      for (std::int64_t h = 0; h < heads; ++h) {
        rotate_row(in + b * from.stride(0) + h * from.stride(1) + t * from.stride(2), c + at,
                   s + at, width, turn,
                   out + b * to.stride(0) + h * to.stride(1) + t * to.stride(2));
      }
    }
  });
  return to;
}

class Rotate : public torch::autograd::Function<Rotate> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& cos, const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotate(q, cos, sin, 1.0F);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {rotate(grads[0], saved[0], saved[1], -1.0F), at::Tensor(), at::Tensor()};
  }
};

// The same in three operators, on any device.
at::Tensor rotate_halves(const at::Tensor& q, const at::Tensor& cos, const at::Tensor& sin,
                         double turn) {
  const std::int64_t half = q.size(-1) / 2;
  const auto first = [&](const at::Tensor& t) { return t.narrow(-1, 0, half); };
  const auto second = [&](const at::Tensor& t) { return t.narrow(-1, half, half); };
  const at::Tensor turned = q * cos;
  first(turned).addcmul_(second(q), first(sin), -turn);
  second(turned).addcmul_(first(q), second(sin), turn);
  return turned;
}

class RotateHalves : public torch::autograd::Function<RotateHalves> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& cos, const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotate_halves(q, cos, sin, 1.0);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {rotate_halves(grads[0], saved[0], saved[1], -1.0), at::Tensor(), at::Tensor()};
  }
};

// The table as make_rotary_table leaves it, beside float32 on a CPU.
bool can_rotate(const at::Tensor& q, const RotaryTable& table) {
  return q.is_cpu() && q.scalar_type() == at::kFloat && q.size(3) % 2 == 0 &&
         table.cos.is_contiguous() && table.sin.is_contiguous() &&
         table.cos.scalar_type() == at::kFloat && !table.cos.requires_grad();
}

}  // namespace

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
  if (can_rotate(q, table)) {
    return c10::GradMode::is_enabled() ? Rotate::apply(q, table.cos, table.sin)
                                       : rotate(q, table.cos, table.sin, 1.0F);
  }
  // A table is the same for both halves, which the gradient counts on.
  if (!q.is_cpu() && q.scalar_type() == table.cos.scalar_type()) {
    return c10::GradMode::is_enabled() ? RotateHalves::apply(q, table.cos, table.sin)
                                       : rotate_halves(q, table.cos, table.sin, 1.0);
  }
  const std::int64_t half = q.size(-1) / 2;
  const at::Tensor rotated = at::cat({-q.narrow(-1, half, half), q.narrow(-1, 0, half)}, -1);
  return q * table.cos + rotated * table.sin;
}

}  // namespace vlm

#include "vlm/nn/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numbers>

#include "vlm/io/parallel.h"
#include "vlm/nn/cpu/clones.h"
#include "vlm/nn/upload.h"

namespace vlm {
namespace {

constexpr std::int64_t kPieceFloats = 32 * 1024;  // that a thread takes at a time

// One head's `width` numbers at one place, of which the first `turned` turn. `turn` -1 rotates
// back: the gradient.
VLM_CLONES void rotate_row(const float* q, const float* cos, const float* sin, std::int64_t turned,
                           std::int64_t width, float turn, float* to) {
  const std::int64_t half = turned / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = q[i], b = q[half + i];
    to[i] = a * cos[i] - b * (turn * sin[i]);
    to[half + i] = b * cos[half + i] + a * (turn * sin[half + i]);
  }
  for (std::int64_t i = turned; i < width; ++i) to[i] = q[i];
}

// On a GPU, in three operators.
at::Tensor rotate_halves(const at::Tensor& q, const at::Tensor& cos, const at::Tensor& sin,
                         float turn) {
  const std::int64_t half = q.size(3) / 2;
  const auto first = [&](const at::Tensor& t) { return t.narrow(3, 0, half); };
  const auto second = [&](const at::Tensor& t) { return t.narrow(3, half, half); };
  at::Tensor to = q * cos;
  first(to).addcmul_(second(q), first(sin), -turn);
  second(to).addcmul_(first(q), second(sin), turn);
  return to;
}

at::Tensor rotate(const at::Tensor& q, const at::Tensor& cos, const at::Tensor& sin, float turn) {
  const std::int64_t turned = cos.size(3), passed = q.size(3) - turned;
  if (!q.is_cpu()) {
    if (passed == 0) return rotate_halves(q, cos, sin, turn);
    return at::cat(
        {rotate_halves(q.narrow(3, 0, turned), cos, sin, turn), q.narrow(3, turned, passed)}, 3);
  }
  const at::Tensor from = q.stride(3) == 1 ? q : q.contiguous();
  at::Tensor to = at::empty_like(from);
  const std::int64_t heads = q.size(1), tokens = q.size(2), width = q.size(3);
  const float *in = from.const_data_ptr<float>(), *c = cos.const_data_ptr<float>(),
              *s = sin.const_data_ptr<float>();
  float* out = to.mutable_data_ptr<float>();
  const std::int64_t table_step = cos.size(0) == 1 ? 0 : tokens * turned;
  const std::int64_t rows = q.size(0) * tokens;
  const std::int64_t step = std::max<std::int64_t>(kPieceFloats / (heads * width), 1);
  run_pieces((rows + step - 1) / step, [&](std::int64_t piece) {
    for (std::int64_t row = piece * step; row < std::min((piece + 1) * step, rows); ++row) {
      const std::int64_t b = row / tokens, t = row % tokens, at = b * table_step + t * turned;
      for (std::int64_t h = 0; h < heads; ++h) {
        rotate_row(in + b * from.stride(0) + h * from.stride(1) + t * from.stride(2), c + at,
                   s + at, turned, width, turn,
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

// The table as make_rotary_table leaves it; float32 on a CPU.
bool can_rotate(const at::Tensor& q, const RotaryTable& table) {
  if (!q.is_cpu()) return table.cos.size(3) % 2 == 0 && !table.cos.requires_grad();
  return q.scalar_type() == at::kFloat && table.cos.size(3) % 2 == 0 && table.cos.is_contiguous() &&
         table.sin.is_contiguous() && table.cos.scalar_type() == at::kFloat &&
         !table.cos.requires_grad();
}

// [R/2]; float32 throughout, as far positions multiply every bit of difference.
at::Tensor plain_frequencies(const RotarySettings& settings, const std::vector<double>& stretch) {
  const at::Tensor exponents = at::arange(0, settings.dims, 2, at::kLong).to(at::kFloat) /
                               static_cast<double>(settings.dims);
  const at::Tensor powers = at::pow(settings.theta, exponents);
  return 1.0 / (stretch.empty() ? powers : at::tensor(stretch, at::kFloat) * powers);
}

// Short waves keep their frequency, long ones are slowed down, those between a part of it.
at::Tensor slow_long_waves(const RotarySettings& settings, const at::Tensor& plain) {
  const auto positions = static_cast<double>(settings.original_positions);
  const double low = settings.low_freq_factor, high = settings.high_freq_factor;
  const at::Tensor waves = 2 * std::numbers::pi / plain;
  const at::Tensor slowed = at::where(waves.gt(positions / low), plain / settings.factor, plain);
  const at::Tensor part = (positions / waves - low) / (high - low);
  const at::Tensor between = (1 - part) * slowed / settings.factor + part * slowed;
  const at::Tensor is_between = waves.ge(positions / high).logical_and(waves.le(positions / low));
  return at::where(is_between, between, slowed);
}

at::Tensor make_frequencies(const RotarySettings& settings, const std::vector<double>& stretch) {
  const at::Tensor plain = plain_frequencies(settings, stretch);
  switch (settings.kind) {
    case RotarySettings::Kind::kLinear:
      return plain / settings.factor;
    case RotarySettings::Kind::kLlama3:
      return slow_long_waves(settings, plain);
    default:
      return plain;
  }
}

// The row of three that each frequency turns by. [R/2]
at::Tensor make_axes(const RotarySettings& settings) {
  std::vector<std::int64_t> axes;
  if (!settings.are_sections_interleaved) {
    for (std::size_t axis = 0; axis < settings.sections.size(); ++axis) {
      axes.insert(axes.end(), static_cast<std::size_t>(settings.sections[axis]),
                  static_cast<std::int64_t>(axis));
    }
    return at::tensor(axes, at::kLong);
  }
  for (std::int64_t i = 0; i < settings.dims / 2; ++i) {
    const auto axis = static_cast<std::size_t>(i % 3);
    axes.push_back(i < 3 * settings.sections[axis] ? i % 3 : 0);
  }
  return at::tensor(axes, at::kLong);
}

}  // namespace

Rotary::Rotary(const RotarySettings& settings) : settings_(settings) {
  const c10::InferenceMode normal(false);
  const auto twice = [](const at::Tensor& t) { return at::cat({t, t}); };
  short_ = twice(make_frequencies(settings, settings.short_factor));
  if (switch_length() > 0) long_ = twice(make_frequencies(settings, settings.long_factor));
  if (!settings.sections.empty()) axes_ = twice(make_axes(settings));
}

std::int64_t Rotary::switch_length() const {
  return settings_.kind == RotarySettings::Kind::kLongRope ? settings_.original_positions : 0;
}

// [R], or [B or 1, T or 1, R].
at::Tensor Rotary::frequencies_on(at::Device device, const at::Tensor& is_long) const {
  if (!on_device_.defined() || on_device_.device() != device) {
    const c10::InferenceMode normal(false);
    on_device_ = upload(long_.defined() ? at::stack({short_, long_}) : short_.unsqueeze(0), device);
  }
  if (!is_long.defined() || !long_.defined()) return on_device_[0];
  return at::where(is_long.unsqueeze(-1), on_device_[1], on_device_[0]);
}

RotaryTable Rotary::make_table(const at::Tensor& positions, at::ScalarType dtype,
                               const at::Tensor& is_long) const {
  const at::Tensor frequencies = frequencies_on(positions.device(), is_long);
  const at::Tensor turns =
      positions.dim() == 3
          ? positions.index_select(0, upload(axes_, positions.device())).movedim(0, -1).contiguous()
          : positions.unsqueeze(-1);
  const at::Tensor angles = (turns * frequencies).unsqueeze(1);  // [B, 1, T, R]
  at::Tensor cos = angles.cos(), sin = angles.sin();
  if (settings_.attention_factor != 1) {
    cos.mul_(settings_.attention_factor);
    sin.mul_(settings_.attention_factor);
  }
  return {cos.to(dtype), sin.to(dtype)};
}

at::Tensor apply_rotary(const at::Tensor& q, const RotaryTable& table) {
  if (can_rotate(q, table)) {
    return c10::GradMode::is_enabled() ? Rotate::apply(q, table.cos, table.sin)
                                       : rotate(q, table.cos, table.sin, 1.0F);
  }
  const std::int64_t turned = table.cos.size(-1), half = turned / 2;
  const at::Tensor part = q.narrow(-1, 0, turned);
  const at::Tensor halves = at::cat({-part.narrow(-1, half, half), part.narrow(-1, 0, half)}, -1);
  const at::Tensor rotated = part * table.cos + halves * table.sin;
  if (turned == q.size(-1)) return rotated;
  return at::cat({rotated, q.narrow(-1, turned, q.size(-1) - turned)}, -1);
}

}  // namespace vlm

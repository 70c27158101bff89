#include "vlm/nn/frozen_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>

#include "vlm/nn/bfloat16_linear.h"
#include "vlm/nn/quantize.h"

namespace vlm {
namespace {

constexpr std::int64_t kWideBytes = 32 << 20;  // of bfloat16 weights widened at a time in backward

// A linear map whose matrix nobody keeps; it travels to backward as an opaque value.
struct LinearMap : torch::CustomClassHolder {
  std::function<at::Tensor(const at::Tensor&)> apply;      // [..., in] → [..., out]
  std::function<at::Tensor(const at::Tensor&)> transpose;  // [..., out] → [..., in]
};

class FrozenFunction : public torch::autograd::Function<FrozenFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<LinearMap>& map) {
    context->saved_data["map"] = c10::IValue::make_capsule(map);
    return map->apply(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto map =
        c10::static_intrusive_pointer_cast<LinearMap>(context->saved_data["map"].toCapsule());
    return {map->transpose(grads[0]), at::Tensor()};
  }
};

// dy W, widening a few rows of W at a time.
at::Tensor times_bfloat16(const at::Tensor& dy, const at::Tensor& weight) {
  const at::Tensor rows = dy.reshape({-1, weight.size(0)});
  at::Tensor dx = at::zeros({rows.size(0), weight.size(1)}, dy.options());
  const std::int64_t step = std::max<std::int64_t>(kWideBytes / 4 / weight.size(1), 1);
  for (std::int64_t begin = 0; begin < weight.size(0); begin += step) {
    const std::int64_t count = std::min(step, weight.size(0) - begin);
    dx.addmm_(rows.narrow(1, begin, count), weight.narrow(0, begin, count).to(dy.scalar_type()));
  }
  std::vector<std::int64_t> shape = dy.sizes().vec();
  shape.back() = weight.size(1);
  return dx.view(shape);
}

bool needs_graph(const at::Tensor& x) {
  return c10::GradMode::is_enabled() && x.requires_grad();
}

}  // namespace

at::Tensor nf4_linear(const at::Tensor& x, const std::shared_ptr<const Nf4Weight>& weight,
                      const at::Tensor& bias) {
  if (!needs_graph(x)) return at::linear(x, dequantize_nf4(*weight, x.scalar_type()), bias);
  auto map = c10::make_intrusive<LinearMap>();
  map->apply = [weight](const at::Tensor& in) {
    return at::linear(in, dequantize_nf4(*weight, in.scalar_type()));
  };
  map->transpose = [weight](const at::Tensor& grad) {
    return grad.matmul(dequantize_nf4(*weight, grad.scalar_type()));
  };
  const at::Tensor y = FrozenFunction::apply(x, map);
  return bias.defined() ? y + bias : y;
}

at::Tensor frozen_bfloat16_linear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias) {
  const bool is_bias_trained =
      c10::GradMode::is_enabled() && bias.defined() && bias.requires_grad();
  if (!needs_graph(x) && !is_bias_trained) return bfloat16_linear(x, weight, bias);
  auto map = c10::make_intrusive<LinearMap>();
  map->apply = [weight](const at::Tensor& in) { return bfloat16_linear(in, weight, {}); };
  map->transpose = [weight](const at::Tensor& grad) { return times_bfloat16(grad, weight); };
  const at::Tensor y = FrozenFunction::apply(x, map);
  return bias.defined() ? y + bias : y;
}

}  // namespace vlm

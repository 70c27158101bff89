#include "vlm/nn/frozen_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>

#include "vlm/nn/cpu/bfloat16/bfloat16_linear.h"
#include "vlm/nn/quantize.h"

namespace vlm {
namespace {

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

bool needs_graph(const at::Tensor& x) {
  return c10::GradMode::is_enabled() && x.requires_grad();
}

}  // namespace

at::Tensor nf4_linear(const at::Tensor& x, const std::shared_ptr<const Nf4Weight>& weight,
                      const at::Tensor& bias, at::ScalarType product_dtype) {
  auto map = c10::make_intrusive<LinearMap>();
  const bool is_rounded =
      product_dtype == at::kBFloat16 && x.scalar_type() == at::kFloat && x.is_cpu();
  map->apply = [=](const at::Tensor& in) {
    const at::Tensor wide = dequantize_nf4(*weight, product_dtype);
    if (is_rounded) return bfloat16_linear(in, wide, {}, product_dtype);
    return at::linear(in.to(product_dtype), wide).to(in.scalar_type());
  };
  map->transpose = [=](const at::Tensor& grad) {
    const at::Tensor wide = dequantize_nf4(*weight, product_dtype);
    if (is_rounded) return times_bfloat16(grad, wide, product_dtype);
    return grad.to(product_dtype).matmul(wide).to(grad.scalar_type());
  };
  const at::Tensor y = FrozenFunction::apply(x, map);
  return bias.defined() ? y + bias.to(y.scalar_type()) : y;
}

namespace {

// The products of a bfloat16 weight, and of its transpose, with float32 values: on a CPU by kernels
// of our own, elsewhere with the weight widened.
at::Tensor times_weight(const at::Tensor& in, const at::Tensor& weight, at::ScalarType dtype) {
  if (in.is_cpu()) return bfloat16_linear(in, weight, {}, dtype);
  return at::linear(in, weight.to(in.scalar_type()));
}

at::Tensor times_transpose(const at::Tensor& grad, const at::Tensor& weight, at::ScalarType dtype) {
  if (grad.is_cpu()) return times_bfloat16(grad, weight, dtype);
  return grad.matmul(weight.to(grad.scalar_type()));
}

}  // namespace

at::Tensor frozen_bfloat16_linear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias, at::ScalarType product_dtype) {
  const bool is_bias_trained =
      c10::GradMode::is_enabled() && bias.defined() && bias.requires_grad();
  if (!needs_graph(x) && !is_bias_trained && x.is_cpu()) {
    return bfloat16_linear(x, weight, bias, product_dtype);
  }
  auto map = c10::make_intrusive<LinearMap>();
  map->apply = [weight, product_dtype](const at::Tensor& in) {
    return times_weight(in, weight, product_dtype);
  };
  map->transpose = [weight, product_dtype](const at::Tensor& grad) {
    return times_transpose(grad, weight, product_dtype);
  };
  const at::Tensor y = FrozenFunction::apply(x, map);
  return bias.defined() ? y + bias.to(y.scalar_type()) : y;
}

}  // namespace vlm

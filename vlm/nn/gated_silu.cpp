#include "vlm/nn/gated_silu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vlm {
namespace {

class GatedSilu : public torch::autograd::Function<GatedSilu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate,
                            const at::Tensor& up, at::ScalarType kept_dtype) {
    context->save_for_backward({gate.to(kept_dtype), up.to(kept_dtype)});
    return at::silu(gate).mul_(up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor gate = saved[0].to(grads[0].scalar_type());
    return {at::silu_backward(grads[0] * saved[1], gate), at::silu(gate).mul_(grads[0]),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up, at::ScalarType product_dtype) {
  if (!c10::GradMode::is_enabled()) return at::silu_(gate).mul_(up);
  const bool is_narrowed = product_dtype == at::kBFloat16 && gate.scalar_type() == at::kFloat;
  return GatedSilu::apply(gate, up, is_narrowed ? at::kBFloat16 : gate.scalar_type());
}

}  // namespace vlm

#include "vlm/nn/gated_silu.h"

#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vlm {
namespace {

class GatedSilu : public torch::autograd::Function<GatedSilu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate,
                            const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {at::silu_backward(grads[0] * saved[1], saved[0]), at::silu(saved[0]).mul_(grads[0])};
  }
};

}  // namespace

at::Tensor gated_silu(at::Tensor gate, const at::Tensor& up) {
  if (!c10::GradMode::is_enabled()) return at::silu_(gate).mul_(up);
  return GatedSilu::apply(gate, up);
}

}  // namespace vlm

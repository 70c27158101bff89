#include "vlm/nn/activation_checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vlm {
namespace {

using Block = std::function<at::Tensor(const at::Tensor&)>;

at::Generator device_generator(const at::Tensor& x) {
  return at::globalContext().defaultGenerator(x.device());
}

// The block travels to backward as an opaque value.
struct BlockHolder : torch::CustomClassHolder {
  Block block;
  at::Tensor generator_state;
};

class CheckpointFunction : public torch::autograd::Function<CheckpointFunction> {
 public:
  // `anchor` requires a gradient, so that the output does even if x doesn't.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& anchor,
                            const c10::intrusive_ptr<BlockHolder>& holder) {
    (void)anchor;
    holder->generator_state = device_generator(x).get_state();
    context->save_for_backward({x});
    context->saved_data["holder"] = c10::IValue::make_capsule(holder);
    const c10::AutoGradMode no_grad(false);
    return holder->block(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto holder =
        c10::static_intrusive_pointer_cast<BlockHolder>(context->saved_data["holder"].toCapsule());
    const at::Tensor saved = context->get_saved_variables()[0];
    const at::Tensor x = saved.detach().requires_grad_(saved.requires_grad());
    at::Generator generator = device_generator(x);
    const at::Tensor current_state = generator.get_state();
    generator.set_state(holder->generator_state);
    at::Tensor output;
    {
      const c10::AutoGradMode with_grad(true);
      output = holder->block(x);
    }
    generator.set_state(current_state);
    torch::autograd::backward({output}, {grads[0]});
    return {x.grad(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool needs_gradient(const torch::nn::Module& owner, const at::Tensor& x) {
  if (!c10::GradMode::is_enabled()) return false;
  if (x.requires_grad()) return true;
  for (const at::Tensor& parameter : owner.parameters()) {
    if (parameter.requires_grad()) return true;
  }
  return false;
}

at::Tensor checkpoint_activations(const torch::nn::Module& owner, const Block& block,
                                  const at::Tensor& x) {
  if (!needs_gradient(owner, x)) return block(x);
  auto holder = c10::make_intrusive<BlockHolder>();
  holder->block = block;
  const at::Tensor anchor = at::zeros({1}, x.options().dtype(at::kFloat)).requires_grad_();
  return CheckpointFunction::apply(x, anchor, holder);
}

}  // namespace vlm

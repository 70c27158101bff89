// Arithmetic of one adapted layer.
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "vlm/nn/lora/embedding_branch.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

// The frozen layer travels to backward as an opaque value; the model outlives the step.
struct AdaptedLayer : torch::CustomClassHolder {
  const Linear* base = nullptr;
  double scaling = 1;
  at::Tensor down, up;  // A and B in the dtype of x, where there are such copies

  at::Tensor weight(at::ScalarType dtype) const { return base->stored().widen(dtype); }
};

// scale · a b as one operator: what is added to is not read.
at::Tensor scaled_product(const at::Tensor& a, const at::Tensor& b, double scale) {
  return at::addmm(b.select(0, 0), a, b, /*beta=*/0, scale);
}

// The product in float32, whatever a and b are; only GPUs have it as one operator.
at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == at::kFloat ? a.mm(b) : at::mm(a, b, at::kFloat);
}

// x Wᵀ + bias + scaling · (dropped Aᵀ) Bᵀ on rows, in x's dtype, which A and B are cast to: eight
// products in all, where autograd makes twice the operators and keeps x in A's dtype. `dropped` is
// x behind dropout, nothing where it is x. The gradients of A and B are float32, as A and B are.
// Used on GPUs, where each operator costs a launch.
class AdaptedProduct : public torch::autograd::Function<AdaptedProduct> {
 public:
  using Given = std::optional<at::Tensor>;

  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const Given& dropped, const Given& bias, const at::Tensor& a,
                            const at::Tensor& b, const c10::intrusive_ptr<AdaptedLayer>& layer) {
    const at::Tensor in = dropped.value_or(x);
    const bool has_copies = layer->down.defined();
    const at::Tensor down = has_copies ? layer->down : a.to(x.scalar_type());
    const at::Tensor up = has_copies ? layer->up : b.to(x.scalar_type());
    at::Tensor y = layer->base->multiply(x, bias.value_or(at::Tensor()));  // [rows, out]
    const at::Tensor low = scaled_product(in, down.t(), layer->scaling);   // [rows, r]
    y.addmm_(low, up.t());
    context->save_for_backward({in, low, down, up});
    context->saved_data["layer"] = c10::IValue::make_capsule(layer);
    context->saved_data["passes"] = x.requires_grad();
    context->saved_data["drops"] = dropped.has_value();
    context->saved_data["has_bias"] = bias && bias->requires_grad();
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto layer =
        c10::static_intrusive_pointer_cast<AdaptedLayer>(context->saved_data["layer"].toCapsule());
    const auto saved = context->get_saved_variables();
    const at::Tensor &in = saved[0], &low = saved[1], &down = saved[2], &up = saved[3];
    const at::Tensor& grad = grads[0];
    const at::Tensor grad_low = scaled_product(grad, up, layer->scaling);  // [rows, r]
    const at::Tensor grad_a = wide_product(grad_low.t(), in);
    const at::Tensor grad_b = wide_product(grad.t(), low);
    at::Tensor grad_x, grad_dropped, grad_bias;
    if (context->saved_data["passes"].toBool()) {
      grad_x = grad.mm(layer->weight(grad.scalar_type()));
      if (context->saved_data["drops"].toBool()) {
        grad_dropped = grad_low.mm(down);
      } else {
        grad_x.addmm_(grad_low, down);
      }
    }
    if (context->saved_data["has_bias"].toBool()) grad_bias = grad.sum(0).to(at::kFloat);
    return {grad_x, grad_dropped, grad_bias, grad_a, grad_b, at::Tensor()};
  }
};

bool is_base_trained(const Linear& base) {
  return base.weight.defined() && base.weight.requires_grad();
}

}  // namespace

LoraBranch::LoraBranch(const Linear& base, const BranchOptions& options)
    : a_(std::make_shared<Linear>(base.in_features(), options.r, false)),
      b_(std::make_shared<Linear>(options.r, base.out_features(), false)),
      scaling_(options.scaling),
      dropout_(options.dropout) {
  a_->to(base.device());
  b_->to(base.device());
  if (options.has_magnitude) magnitude = at::empty({base.out_features()}, b_->weight.options());
}

at::Tensor LoraBranch::forward(const Linear& base, const at::Tensor& x) const {
  const bool is_fused =
      !x.is_cpu() && !magnitude.defined() && c10::GradMode::is_enabled() && !is_base_trained(base);
  if (is_fused) return forward_fused(base, x);
  const at::Tensor input = x.to(a_->weight.scalar_type());
  const at::Tensor dropped =
      dropout_ > 0 && a_->is_training() ? at::dropout(input, dropout_, true) : input;
  if (magnitude.defined()) return forward_dora(base, x, dropped);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = base.out_features();
  const at::Tensor y = base.multiply(x.reshape({-1, x.size(-1)}), base.bias);  // [rows, out]
  const at::Tensor low = a_->forward(dropped.reshape({-1, x.size(-1)}));       // [rows, r]
  if (y.scalar_type() != low.scalar_type()) {
    return (y + b_->forward(low) * scaling_).to(y.scalar_type()).view(shape);
  }
  // Scaled and added by the product itself: the layer's widest tensor is passed over once.
  return at::Tensor(y).addmm_(low, b_->weight.t(), 1, scaling_).view(shape);
}

at::Tensor LoraBranch::forward_fused(const Linear& base, const at::Tensor& x) const {
  auto layer = c10::make_intrusive<AdaptedLayer>();
  layer->base = &base;
  layer->scaling = scaling_;
  if (narrow.a.defined() && narrow.a.scalar_type() == x.scalar_type()) {
    TORCH_CHECK(narrow.version == version(), "an adapter has changed, and its copies haven't");
    layer->down = narrow.a;
    layer->up = narrow.b;
  }
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  AdaptedProduct::Given dropped, bias;
  if (base.bias.defined()) bias = base.bias;
  if (dropout_ > 0 && a_->is_training()) dropped = at::dropout(rows, dropout_, true);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = base.out_features();
  return AdaptedProduct::apply(rows, dropped, bias, a_->weight, b_->weight, layer).view(shape);
}

at::Tensor LoraBranch::forward_dora(const Linear& base, const at::Tensor& x,
                                    const at::Tensor& dropped) const {
  const at::Tensor factor = magnitude / row_norms(base);  // [out]
  const at::Tensor added = b_->forward(a_->forward(dropped)) * scaling_;
  if (dropout_ > 0 && a_->is_training()) {
    // PEFT applies the factor less 1 to the base's product with what dropout left.
    const at::Tensor y = base.multiply(x, base.bias);
    const at::Tensor partial = base.multiply(dropped.to(x.scalar_type()), {});
    return (y + (factor - 1) * partial + factor * added).to(y.scalar_type());
  }
  const at::Tensor y = base.multiply(x, {});
  const at::Tensor scaled = (y + added) * factor;
  return (base.bias.defined() ? scaled + base.bias : scaled).to(y.scalar_type());
}

std::uint32_t LoraBranch::version() const {
  return a_->weight._version() + b_->weight._version();
}

void LoraBranch::share(const EmbeddingBranch& embedding) {
  a_->share_weight(embedding.b.detach().t());
  b_->share_weight(embedding.a.detach().t());
}

at::Tensor LoraBranch::delta() const {
  return b_->weight.to(at::kFloat).matmul(a_->weight.to(at::kFloat)) * scaling_;
}

at::Tensor LoraBranch::merged(const Linear& base) const {
  const at::Tensor sum = base.dense_weight().to(at::kFloat) + delta();
  if (!magnitude.defined()) return sum;
  return sum * (magnitude / sum.square().sum(1).sqrt()).unsqueeze(1);
}

at::Tensor LoraBranch::row_norms(const Linear& base) const {
  const c10::NoGradGuard no_grad;
  // |W + sBA|² by row = |W|² + 2s (W Aᵀ)·B + s² (B A Aᵀ)·B: no second matrix of W's size.
  const at::Tensor a = a_->weight, b = b_->weight;
  const at::Tensor weight = base.dense_weight().to(at::kFloat);
  if (!base_squares_.defined()) base_squares_ = weight.square().sum(1);
  const at::Tensor mixed = (weight.matmul(a.t()) * b).sum(1);
  const at::Tensor own = (b.matmul(a.matmul(a.t())) * b).sum(1);
  return (base_squares_ + mixed * (2 * scaling_) + own * (scaling_ * scaling_)).clamp_min(0).sqrt();
}

}  // namespace vlm

// Arithmetic of one adapted layer.
#include <ATen/ops/dropout.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "vlm/nn/lora/embedding_branch.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {

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

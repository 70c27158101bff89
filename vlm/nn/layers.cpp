#include "vlm/nn/layers.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rsqrt.h>
#include <c10/core/GradMode.h>

#include "vlm/nn/bfloat16_linear.h"
#include "vlm/nn/lora.h"
#include "vlm/nn/rms_norm.h"

namespace vlm {

Linear::Linear(std::int64_t in_features, std::int64_t out_features, bool has_bias) {
  weight = register_parameter("weight", at::empty({out_features, in_features}));
  if (has_bias) bias = register_parameter("bias", at::empty({out_features}));
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  const bool is_mixed = weight.scalar_type() == at::kBFloat16 && x.scalar_type() == at::kFloat;
  const at::Tensor y = is_mixed ? bfloat16_linear(x, weight, bias) : at::linear(x, weight, bias);
  return lora_ ? lora_->add_to(y, x) : y;
}

void Linear::set_lora(std::shared_ptr<LoraBranch> branch) {
  if (lora_) {
    unregister_module("lora_A");
    unregister_module("lora_B");
  }
  lora_ = std::move(branch);
  if (lora_) {
    register_module("lora_A", lora_->a());
    register_module("lora_B", lora_->b());
  }
}

void Linear::share_weight(const at::Tensor& shared) {
  parameters_["weight"] = shared;
  weight = shared;
}

Embedding::Embedding(std::int64_t rows, std::int64_t features) {
  weight = register_parameter("weight", at::empty({rows, features}));
}

at::Tensor Embedding::forward(const at::Tensor& ids) const {
  return at::embedding(weight, ids);
}

LayerNorm::LayerNorm(std::int64_t features, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({features}));
  bias = register_parameter("bias", at::empty({features}));
}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps_);
}

RmsNorm::RmsNorm(std::int64_t features, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({features}));
}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  if (can_normalize_rows(x, weight)) return normalize_rows(x, weight, eps_);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps_);
  return weight * (wide * scale).to(x.scalar_type());
}

at::Tensor add_residual(at::Tensor branch, const at::Tensor& x) {
  return at::GradMode::is_enabled() ? branch + x : branch.add_(x);
}

void initialize_weights(torch::nn::Module& model, double std, at::Generator generator) {
  const c10::NoGradGuard no_grad;
  for (auto& child : model.modules()) {
    const bool is_norm =
        dynamic_cast<LayerNorm*>(child.get()) || dynamic_cast<RmsNorm*>(child.get());
    for (auto& item : child->named_parameters(/*recurse=*/false)) {
      if (item.key() == "bias") {
        item.value().zero_();
      } else if (is_norm) {
        item.value().fill_(1.0);
      } else {
        item.value().normal_(0.0, std, generator);
      }
    }
  }
}

}  // namespace vlm

#include "vlm/nn/lora/embedding_branch.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "vlm/nn/lora/lora.h"

namespace vlm {

EmbeddingBranch::EmbeddingBranch(const Embedding& base, const BranchOptions& options)
    : scaling_(options.scaling) {
  const at::TensorOptions wide = base.weight.options().dtype(at::kFloat).requires_grad(false);
  a = at::empty({options.r, base.weight.size(0)}, wide);
  b = at::empty({base.weight.size(1), options.r}, wide);
  if (options.has_magnitude) magnitude = at::empty({base.weight.size(1)}, wide);
}

at::Tensor EmbeddingBranch::forward(const Embedding& base, const at::Tensor& ids) const {
  const at::Tensor rows = at::embedding(base.weight, ids).to(at::kFloat);
  const at::Tensor added = at::embedding(a.t(), ids).matmul(b.t()) * scaling_;
  if (!magnitude.defined()) return rows + added;
  return (rows + added) * (magnitude / column_norms(base));
}

at::Tensor EmbeddingBranch::merged(const Embedding& base) const {
  const at::Tensor sum = base.weight.to(at::kFloat) + a.t().matmul(b.t()) * scaling_;
  return magnitude.defined() ? sum * (magnitude / sum.square().sum(0).sqrt()) : sum;
}

at::Tensor EmbeddingBranch::column_norms(const Embedding& base) const {
  const c10::NoGradGuard no_grad;
  // |W + sAᵀBᵀ|² by column = |W|² + 2s (A W)ᵀ·B + s² (B A Aᵀ)·B: no second matrix of W's size.
  const at::Tensor weight = base.weight.to(at::kFloat);
  const at::Tensor mixed = (a.matmul(weight).t() * b).sum(1);
  const at::Tensor own = (b.matmul(a.matmul(a.t())) * b).sum(1);
  const at::Tensor squares =
      weight.square().sum(0) + mixed * (2 * scaling_) + own * (scaling_ * scaling_);
  return squares.clamp_min(0).sqrt();
}

}  // namespace vlm

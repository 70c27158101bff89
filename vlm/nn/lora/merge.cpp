// An adapter's part put into the weights.
#include <c10/core/GradMode.h>

#include "vlm/nn/lora/embedding_branch.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/lora/shared_head.h"
#include "vlm/nn/lora/token_rows.h"

namespace vlm {
namespace {

// The weights set are tensors of their own, as the old one may be the mapped file, or that of a
// tied layer.
void merge(Linear& linear) {
  if (linear.lora()) {
    const at::ScalarType dtype = linear.weight.defined() ? linear.weight.scalar_type() : at::kFloat;
    const at::Tensor merged = linear.lora()->merged(linear).to(dtype);
    linear.set_lora(nullptr);
    linear.set_weight(merged);
  }
  if (linear.tokens()) {
    linear.set_weight(linear.tokens()->merged(linear.weight));
    linear.set_tokens(nullptr);
  }
}

void merge(Embedding& embedding) {
  if (embedding.lora()) {
    const at::Tensor merged =
        embedding.lora()->merged(embedding).to(embedding.weight.scalar_type());
    embedding.set_lora(nullptr);
    embedding.set_weight(merged);
  }
  if (embedding.tokens()) {
    embedding.set_weight(embedding.tokens()->merged(embedding.weight));
    embedding.set_tokens(nullptr);
  }
}

// Whether the head's branch is the embeddings', so that both add the same.
bool has_shared_branch(const SharedHead& shared) {
  const LoraBranch* head = shared.head->lora();
  const EmbeddingBranch* embedding = shared.embedding->lora();
  return head && embedding && head->a()->weight.is_alias_of(embedding->b) &&
         head->scaling() == embedding->scaling() && !head->magnitude.defined();
}

}  // namespace

void merge_lora(torch::nn::Module& model) {
  const c10::NoGradGuard no_grad;
  const auto shared = find_shared_head(model);
  const bool is_shared = shared && has_shared_branch(*shared);
  for (const auto& module : model.modules(/*include_self=*/false)) {
    if (auto* linear = dynamic_cast<Linear*>(module.get())) merge(*linear);
    if (auto* embedding = dynamic_cast<Embedding*>(module.get())) merge(*embedding);
  }
  if (!shared) return;
  const at::Tensor& weight = shared->embedding->weight;
  if (is_shared || shared->head->weight.equal(weight)) shared->head->share_weight(weight);
}

}  // namespace vlm

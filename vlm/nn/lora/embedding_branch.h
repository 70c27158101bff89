// LoRA on embeddings.
//
//   ids ─► W[ids] + s · A[:, ids]ᵀ Bᵀ, with A: [r, rows], B: [features, r]
//   DoRA: that times m/n by column, n = the columns' norms of W + s · Aᵀ Bᵀ, taken as constants
//
// There is no dropout here. Reference: peft 0.21.2, lora.Embedding and DoraEmbeddingLayer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "vlm/nn/layers.h"

namespace vlm {

struct BranchOptions;

// The adapter of one Embedding. Its tensors appear in the module tree as the embedding's parameters
// lora_embedding_A, lora_embedding_B and, with DoRA, lora_magnitude_vector.
class EmbeddingBranch {
 public:
  EmbeddingBranch(const Embedding& base, const BranchOptions& options);

  // [...] int64 → [..., features], float32
  at::Tensor forward(const Embedding& base, const at::Tensor& ids) const;
  // The base's weight plus the branch (with DoRA also its magnitudes), float32: [rows, features]
  at::Tensor merged(const Embedding& base) const;
  // Norms of the columns of W + scaling · Aᵀ Bᵀ, float32: [features]
  at::Tensor column_norms(const Embedding& base) const;

  double scaling() const { return scaling_; }

  at::Tensor a;          // [r, rows]
  at::Tensor b;          // [features, r]
  at::Tensor magnitude;  // [features] float32; undefined without DoRA

 private:
  double scaling_;
};

}  // namespace vlm

// Layers that every family shares. Parameters carry Hugging Face's names ("weight", "bias").
//
// Parameters are allocated but not initialised: load_weights (vlm/io) or initialize_weights fills
// them. Every projection of a model is a Linear, the one seam through which adapters enter
// (lora.h); model files never mention them. Reference: torch.nn.functional; LlamaRMSNorm of
// transformers 5.23.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

namespace vlm {

class LoraBranch;

// y = x Wᵀ + b, plus the adapter's branch when one is attached. A bfloat16 weight beside float32
// inputs is a state too: stored in half the memory, computed in float32 (bfloat16_linear.h).
class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in_features, std::int64_t out_features, bool has_bias);

  // [..., in_features] → [..., out_features]
  at::Tensor forward(const at::Tensor& x) const;

  // Attaches (or with null removes) the branch whose parameters appear as lora_A.weight and
  // lora_B.weight.
  void set_lora(std::shared_ptr<LoraBranch> branch);
  // Uses `shared` [out_features, in_features] as the weight: one parameter under two names.
  void share_weight(const at::Tensor& shared);

  LoraBranch* lora() const { return lora_.get(); }

  std::int64_t in_features() const { return weight.size(1); }
  std::int64_t out_features() const { return weight.size(0); }

  at::Tensor weight;  // [out_features, in_features]
  at::Tensor bias;    // [out_features], undefined when there is none

 private:
  std::shared_ptr<LoraBranch> lora_;
};

// Rows of the weight, in its dtype.
class Embedding : public torch::nn::Module {
 public:
  Embedding(std::int64_t rows, std::int64_t features);
  at::Tensor forward(const at::Tensor& ids) const;  // [...] int64 → [..., features]

  at::Tensor weight;  // [rows, features]
};

class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(std::int64_t features, double eps);
  at::Tensor forward(const at::Tensor& x) const;

  at::Tensor weight, bias;  // [features]

 private:
  double eps_;
};

// x · rsqrt(mean(x²) + eps) in float32, cast back, then times the weight.
class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(std::int64_t features, double eps);
  at::Tensor forward(const at::Tensor& x) const;

  at::Tensor weight;  // [features]

 private:
  double eps_;
};

// branch + x, into the branch's memory where no gradient is recorded.
at::Tensor add_residual(at::Tensor branch, const at::Tensor& x);

// Random weights as transformers makes them: normal(0, std) for projections, convolutions and
// embeddings, zero biases, norms that do nothing. Deterministic for a generator's state.
void initialize_weights(torch::nn::Module& model, double std, at::Generator generator);

}  // namespace vlm

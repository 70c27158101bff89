// Layers that every family shares. Parameters carry Hugging Face's names ("weight", "bias").
//
// Parameters are allocated but not initialised: load_weights (vlm/io) or initialize_weights fills
// them. Every projection of a model is a Linear, and adapters are attached to Linears and
// Embeddings from outside (lora.h); model files never mention them. Reference: torch.nn.functional;
// LlamaRMSNorm of transformers 5.23.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

class EmbeddingBranch;
class LoraBranch;
class TokenRows;
struct Int8Weight;
struct Nf4Weight;
struct WideBlock;

// y = x Wᵀ + b, plus the adapter's branch when one is attached. How the weight is stored is a
// StoredWeight (weights/stored_weight.h): perhaps in fewer bits than the inputs. Such a weight gets
// no gradient; what is for running models only passes none to x either.
class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in_features, std::int64_t out_features, bool has_bias);

  // [..., in_features] → [..., out_features]
  at::Tensor forward(const at::Tensor& x) const;

  // x Wᵀ + `added` [out_features] (undefined: nothing): without the adapter, and with `added` in
  // place of the bias.
  at::Tensor multiply(const at::Tensor& x, const at::Tensor& added) const;

  // Attaches (or with null removes) the branch whose parameters appear as lora_A.weight,
  // lora_B.weight and lora_magnitude_vector.
  void set_lora(std::shared_ptr<LoraBranch> branch);
  // Attaches (or with null removes) rows that are trained by themselves, as the child
  // "token_adapter".
  void set_tokens(std::shared_ptr<TokenRows> tokens);
  // Takes a weight [out_features, in_features] that is stored in another format. `weight` is then
  // undefined and no parameter; the stored tensors are buffers of the child "quantized".
  void store(std::shared_ptr<const StoredWeight> stored);
  // Stores `value` in NF4 on its device, or in 8 bits on the CPU.
  void store_nf4(const at::Tensor& value);
  void store_int8(const at::Tensor& value);
  // Replaces the weight by a new parameter with this value. A layer that shared the old weight
  // keeps the old one.
  void set_weight(const at::Tensor& value);
  // The weight in its own dtype, or in float32 if it is quantized.
  at::Tensor dense_weight() const { return stored_->dense(); }
  // Uses `shared` [out_features, in_features] as the weight: one parameter under two names.
  void share_weight(const at::Tensor& shared);

  // True without adapter and trained rows: the layer is what map() says.
  bool is_plain() const { return !lora_ && !tokens_; }
  StoredMap map() const { return {stored_, bias, product_dtype}; }

  LoraBranch* lora() const { return lora_.get(); }
  const std::shared_ptr<TokenRows>& tokens() const { return tokens_; }
  const StoredWeight& stored() const { return *stored_; }
  // True where the weight is no parameter.
  bool is_quantized() const { return !weight.defined(); }
  // What is stored, or null if it is stored otherwise.
  const Nf4Weight* nf4() const;
  const Int8Weight* int8() const;

  std::int64_t in_features() const { return in_features_; }
  std::int64_t out_features() const { return out_features_; }
  at::Device device() const { return stored_->device(); }

  at::Tensor weight;  // [out_features, in_features]; undefined when quantized
  at::Tensor bias;    // [out_features], undefined when there is none
  // Dtype in which float32 inputs are multiplied with a weight that is stored in fewer bits.
  at::ScalarType product_dtype = at::kFloat;

 private:
  void check_shape(const at::Tensor& value) const;

  std::int64_t in_features_, out_features_;
  std::shared_ptr<LoraBranch> lora_;
  std::shared_ptr<TokenRows> tokens_;
  std::shared_ptr<const StoredWeight> stored_;
};

// The result of each layer for the same x. Quicker than one by one where all layers store their
// weights in the same few bits and no gradient is recorded.
std::vector<at::Tensor> forward_each(const at::Tensor& x, const std::vector<const Linear*>& layers);

// The results side by side, [..., sum of out_features], of one product on a GPU; undefined where
// the layers are more than weights of x's dtype, on a CPU, and where gradients are recorded.
// The weights are moved to one place in memory when it is called first. For inference.
at::Tensor forward_joined(const at::Tensor& x, const std::vector<const Linear*>& layers);

// Has the NF4 weights of each of a model's blocks ("….layers.3") lie in one place and be expanded
// together (frozen_linear.h), on a GPU. Returns what holds the block expanded last, null where no
// weight was moved.
std::shared_ptr<WideBlock> join_nf4_blocks(const torch::nn::Module& model);

// residual + the layer's result for x, for inference; written into the memory of `residual` on a
// GPU, and as add_residual does elsewhere.
at::Tensor add_projected(at::Tensor residual, const Linear& layer, const at::Tensor& x);

// Rows of the weight, in its dtype; with an adapter (embedding_branch.h) in float32.
class Embedding : public torch::nn::Module {
 public:
  Embedding(std::int64_t rows, std::int64_t features);
  at::Tensor forward(const at::Tensor& ids) const;  // [...] int64 → [..., features]

  // As the functions of Linear. The branch's parameters appear as lora_embedding_A,
  // lora_embedding_B and lora_magnitude_vector.
  void set_lora(std::shared_ptr<EmbeddingBranch> branch);
  void set_tokens(std::shared_ptr<TokenRows> tokens);
  void set_weight(const at::Tensor& value);

  EmbeddingBranch* lora() const { return lora_.get(); }
  const std::shared_ptr<TokenRows>& tokens() const { return tokens_; }

  at::Tensor weight;  // [rows, features]

 private:
  std::shared_ptr<EmbeddingBranch> lora_;
  std::shared_ptr<TokenRows> tokens_;
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

// branch + x; written into the memory of `branch` where no gradient is recorded.
at::Tensor add_residual(at::Tensor branch, const at::Tensor& x);

// Random weights as transformers makes them: normal(0, std) for projections, convolutions and
// embeddings, zero biases, norms with weight 1 and bias 0. Deterministic for a generator's state.
void initialize_weights(torch::nn::Module& model, double std, at::Generator generator);

}  // namespace vlm

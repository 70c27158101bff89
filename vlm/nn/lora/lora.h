// LoRA adapters as in PEFT: which modules they adapt, their arithmetic, their files.
//
//   LoraConfig + model ─► attach_lora ─► branches on the chosen Linears and Embeddings (the base is
//   frozen by the trainer)
//   adapter folder (adapter_config.json, adapter_model.safetensors) ⇄ load_adapter / save_adapter
//
//   y = W x + b + s · B(A(dropout(x))),  s = alpha / r, or alpha / √r with use_rslora
//   DoRA: y = b + m/n · (W x + s · B A x),  n = the rows' norms of W + s · B A, taken as constants
//
// Besides the branches an adapter may train and store biases (`bias`), whole modules
// (`modules_to_save`; the model's own parameters, trained in place) and rows of the embeddings
// (`trainable_token_indices`).
//
// Where embeddings and output head are one weight (a tied model), an adapter of one leaves the
// other as it is: a branch doesn't change the shared weight, a module in modules_to_save gets its
// own copy of the weight, and after merging the two weights are separate if they differ. With
// ensure_weight_tying they stay one weight. Reference: peft 0.21.2. What PEFT can do and this can't
// (other tuners) is refused with an Error that names it, never ignored.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "vlm/nn/layers.h"
#include "vlm/nn/lora/lora_config.h"

namespace vlm {

struct BranchOptions {
  std::int64_t r = 8;
  double scaling = 1;
  double dropout = 0;
  bool has_magnitude = false;  // DoRA
};

// A and B of one Linear, and DoRA's magnitudes. In the module tree they appear as its children
// lora_A and lora_B, and its parameter lora_magnitude_vector.
class LoraBranch {
 public:
  LoraBranch(const Linear& base, const BranchOptions& options);

  // The adapted layer: [..., in_features] → [..., out_features], in the dtype of the base's result.
  // Dropout acts only in training mode.
  at::Tensor forward(const Linear& base, const at::Tensor& x) const;

  // scaling · B A, float32: [out_features, in_features]
  at::Tensor delta() const;
  // The base's weight plus the branch (with DoRA also its magnitudes), float32: [out_features,
  // in_features]
  at::Tensor merged(const Linear& base) const;
  // Norms of the rows of W + scaling · B A, float32: [out_features]. The base's share is computed
  // once and kept, because the base is frozen.
  at::Tensor row_norms(const Linear& base) const;

  // Makes A and B views of the transposed B and A of an embedding's branch. As in PEFT they are
  // still separate parameters with separate gradients.
  void share(const EmbeddingBranch& embedding);

  const std::shared_ptr<Linear>& a() const { return a_; }  // weight [r, in_features]
  const std::shared_ptr<Linear>& b() const { return b_; }  // weight [out_features, r]
  double scaling() const { return scaling_; }
  // Another number after each change of A or B.
  std::uint32_t version() const;

  // A and B in the dtype in which a GPU multiplies them, and the version that they are copies of;
  // undefined without copies (narrow_adapters.h).
  struct Copies {
    at::Tensor a, b;
    std::uint32_t version = 0;
  };
  Copies narrow;

  at::Tensor magnitude;  // [out_features] float32; undefined without DoRA
  // PiSSA: the first values of A and B, whose product was subtracted from the base; undefined
  // otherwise.
  at::Tensor initial_a, initial_b;

 private:
  at::Tensor forward_fused(const Linear& base, const at::Tensor& x) const;
  at::Tensor forward_dora(const Linear& base, const at::Tensor& x, const at::Tensor& dropped) const;

  std::shared_ptr<Linear> a_, b_;
  double scaling_;
  double dropout_;
  mutable at::Tensor base_squares_;  // [out_features], sums of squares of the base's rows
};

// Adds a branch to every layer that the config selects (target_rules.h), and draws its values in
// the order of the module tree: B = 0 and A uniform in ±1/√in (init_lora_weights true) or normal
// with deviation 1/r (gaussian); or the largest singular directions of W, which are subtracted from
// W (pissa). On embeddings A = 0 and B is normal. DoRA's magnitudes begin as the rows' norms, so
// that the model computes what it did. Returns the names of the adapted layers; throws Error for a
// key that has no effect.
std::vector<std::string> attach_lora(torch::nn::Module& model, const LoraConfig& config,
                                     at::Generator generator);

// Adds the branches without drawing values; load_adapter fills them. For PiSSA, whose changed base
// is not stored, the part to subtract from the base is computed again.
void attach_empty(torch::nn::Module& model, const LoraConfig& config);

// One tensor that an adapter trains and its folder stores.
struct AdapterTensor {
  std::string key;   // in adapter_model.safetensors
  std::string name;  // of the model's parameter
  at::Tensor value;
};

// All tensors that the adapter trains, in the order of the module tree; a shared weight appears
// under each of its names. Throws Error when modules_to_save names nothing.
std::vector<AdapterTensor> adapter_tensors(const torch::nn::Module& model,
                                           const LoraConfig& config);

LoraConfig load_adapter_config(const std::filesystem::path& folder);

// Attaches an adapter folder's branches and fills them, its biases and its modules. Throws Error
// unless every tensor of the file is used and every tensor of the adapter filled.
LoraConfig load_adapter(torch::nn::Module& model, const std::filesystem::path& folder);

// Writes a folder that PEFT loads. `base_model` goes into base_model_name_or_path. A PiSSA adapter
// is written as the plain LoRA of twice the rank that adds the same to the untouched base (PEFT's
// path_initial_model_for_weight_conversion).
void save_adapter(const torch::nn::Module& model, const LoraConfig& config,
                  const std::filesystem::path& folder, const std::string& base_model);

// W ← W + scaling · B A (DoRA: with its magnitudes) for every branch, which is then removed;
// trained rows are written into W too. Weights that were shared stay shared if they are still
// equal.
void merge_lora(torch::nn::Module& model);

// True when any layer has a branch or trained rows.
bool has_lora(const torch::nn::Module& model);

// True for the names of the branches' parameters ("….lora_A.weight").
bool is_lora_parameter(const std::string& name);

}  // namespace vlm

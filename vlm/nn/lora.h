// LoRA adapters as PEFT has them: which modules they hit, their arithmetic, their files.
//
//   LoraConfig + model ─► attach_lora ─► branches on the chosen Linears (the base is frozen by the
//   trainer) adapter folder (adapter_config.json, adapter_model.safetensors) ⇄ load_adapter /
//   save_adapter
//
//   y = W x + b + s · B(A(dropout(x))),  s = alpha / r, or alpha / √r with use_rslora
//
// Reference: peft 0.21.2. What PEFT can do and this can't (DoRA, adapters on embeddings, other
// tuners) is refused with an Error that names it, never ignored.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "vlm/nn/layers.h"
#include "vlm/nn/lora_config.h"

namespace vlm {

// A and B of one Linear. In the module tree they appear as its children lora_A and lora_B.
class LoraBranch {
 public:
  LoraBranch(const Linear& base, std::int64_t r, double scaling, double dropout);

  // y + scaling · B(A(dropout(x))), in y's dtype. Dropout acts only in training mode.
  at::Tensor add_to(const at::Tensor& y, const at::Tensor& x) const;

  // scaling · B A, float32: [out_features, in_features]
  at::Tensor delta() const;

  const std::shared_ptr<Linear>& a() const { return a_; }  // weight [r, in_features]
  const std::shared_ptr<Linear>& b() const { return b_; }  // weight [out_features, r]

 private:
  std::shared_ptr<Linear> a_, b_;
  double scaling_;
  double dropout_;
};

// PEFT's rule: a list entry hits a module whose name equals it or ends with "." + entry; a string
// is a regular expression for the whole name; "all-linear" is every Linear but lm_head.
bool matches_module(const Names& names, const std::string& module_name);

// Adds a branch to every Linear that the config hits, B = 0 and A uniform in ±1/√in, drawn in the
// order of the module tree. Returns the names hit; throws Error when there is none.
std::vector<std::string> attach_lora(torch::nn::Module& model, const LoraConfig& config,
                                     at::Generator generator);

// Attaches an adapter folder's branches and fills them. Strict: every tensor of the file is used,
// every branch filled.
LoraConfig load_adapter(torch::nn::Module& model, const std::filesystem::path& folder);

// Writes a folder that PEFT loads. `base_model` goes into base_model_name_or_path.
void save_adapter(const torch::nn::Module& model, const LoraConfig& config,
                  const std::filesystem::path& folder, const std::string& base_model);

// W ← W + scaling · B A for every branch, which is then removed.
void merge_lora(torch::nn::Module& model);

// True when any Linear has a branch.
bool has_lora(const torch::nn::Module& model);

// True for the names of the branches' parameters ("….lora_A.weight").
bool is_lora_parameter(const std::string& name);

}  // namespace vlm

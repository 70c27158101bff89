// Models whose embeddings and output head share one weight.
//
//   model ─► find_shared_head ─► the two layers and their names, or nothing
//   config + these ─► TyingRules: what PEFT's ensure_weight_tying makes of them
//
// Reference: peft 0.21.2, BaseTuner._check_tied_modules and set_additional_trainable_modules.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "vlm/nn/layers.h"
#include "vlm/nn/lora/lora_config.h"

namespace vlm {

struct SharedHead {
  std::string embedding_name, head_name;
  std::shared_ptr<Embedding> embedding;
  std::shared_ptr<Linear> head;
};

std::optional<SharedHead> find_shared_head(const torch::nn::Module& model);

// With ensure_weight_tying: whether modules of modules_to_save, or branches of target_modules, stay
// shared. As in PEFT, target_modules counts only when modules_to_save names no embedding.
struct TyingRules {
  bool are_saved_tied = false;
  bool are_branches_tied = false;
};

TyingRules find_tying(const LoraConfig& config);

}  // namespace vlm

#include "vlm/nn/lora/shared_head.h"

#include <algorithm>

#include "vlm/nn/lora/target_rules.h"

namespace vlm {
namespace {

bool names_embedding(const std::string& entry) {
  const std::string last = entry.substr(entry.rfind('.') + 1);
  return last == "embed_tokens" || last == "lm_head";
}

bool names_embedding(const std::vector<std::string>& entries) {
  return std::any_of(entries.begin(), entries.end(),
                     [](const std::string& entry) { return names_embedding(entry); });
}

}  // namespace

std::optional<SharedHead> find_shared_head(const torch::nn::Module& model) {
  const auto modules = model.named_modules("", /*include_self=*/false);
  for (const auto& item : modules) {
    const auto embedding = std::dynamic_pointer_cast<Embedding>(item.value());
    if (!embedding) continue;
    for (const auto& other : modules) {
      const auto head = std::dynamic_pointer_cast<Linear>(other.value());
      if (!head || !head->weight.defined() || !head->weight.is_same(embedding->weight)) continue;
      return SharedHead{item.key(), other.key(), embedding, head};
    }
  }
  return std::nullopt;
}

TyingRules find_tying(const LoraConfig& config) {
  if (!config.ensure_weight_tying) return {};
  if (names_embedding(config.modules_to_save)) return {.are_saved_tied = true};
  const auto* entries = std::get_if<std::vector<std::string>>(&config.target_modules);
  if (entries) return {.are_branches_tied = names_embedding(*entries)};
  // Of an expression PEFT asks whether it is for the bare names.
  const NameMatcher matcher(config.target_modules, "target_modules");
  return {.are_branches_tied = matcher.matches("embed_tokens") || matcher.matches("lm_head")};
}

}  // namespace vlm

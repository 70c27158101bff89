#include "vlm/nn/lora/token_rows.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/nn/lora/shared_head.h"
#include "vlm/nn/lora/target_rules.h"

namespace vlm {
namespace {

constexpr const char* kKey = "trainable_token_indices";

// A layer that rows can be trained of.
struct TokenLayer {
  std::string name;
  std::shared_ptr<Embedding> embedding;  // one of the two
  std::shared_ptr<Linear> head;

  const at::Tensor& weight() const { return embedding ? embedding->weight : head->weight; }
  bool is_adapted() const {
    return embedding ? embedding->lora() != nullptr : head->lora() != nullptr;
  }
  void set_tokens(const std::shared_ptr<TokenRows>& rows) const {
    if (embedding) embedding->set_tokens(rows);
    if (head) head->set_tokens(rows);
  }
};

[[noreturn]] void refuse_layer(const std::string& what, const std::string& layer,
                               const std::string& wanted) {
  throw Error({.what = what, .where = concat(kKey, ": ", layer), .wanted = wanted});
}

// The layers whose names end with `entry`, as PEFT finds them.
std::vector<TokenLayer> find_layers(const torch::nn::Module& model, const std::string& entry) {
  std::vector<TokenLayer> found;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (!item.key().ends_with(entry)) continue;
    const TokenLayer layer{item.key(), std::dynamic_pointer_cast<Embedding>(item.value()),
                           std::dynamic_pointer_cast<Linear>(item.value())};
    const bool is_head = layer.head && layer.head->weight.defined() && !layer.head->bias.defined();
    if (!layer.embedding && !(is_head && is_output_head(item.key()))) {
      refuse_layer("the layer has no rows for tokens", item.key(), "embeddings or lm_head");
    }
    found.push_back(layer);
  }
  if (found.empty()) throw_no_match(entry, kKey, list_layers(model));
  return found;
}

void check_layer(const TokenLayer& layer, const std::vector<std::int64_t>& ids,
                 const LoraConfig& config) {
  if (layer.is_adapted()) {
    refuse_layer("the layer has an adapter as well", layer.name, "it in only one of the keys");
  }
  if (config.saves_module(layer.name)) {
    refuse_layer("the layer is trained as a whole as well", layer.name,
                 "it in only one of the keys");
  }
  const std::int64_t largest = *std::max_element(ids.begin(), ids.end());
  if (largest < layer.weight().size(0)) return;
  throw Error({.what = "no such token",
               .where = concat(kKey, ": ", layer.name),
               .got = concat(largest),
               .wanted = concat("0 to ", layer.weight().size(0) - 1)});
}

}  // namespace

TokenRows::TokenRows(const std::vector<std::int64_t>& ids, const at::Tensor& weight) {
  const c10::NoGradGuard no_grad;
  ids_ = at::tensor(ids, at::kLong).to(weight.device());
  places_ = at::full({weight.size(0)}, -1, ids_.options());
  places_.index_copy_(0, ids_, at::arange(ids_.size(0), ids_.options()));
  delta = register_parameter("trainable_tokens_delta",
                             weight.detach().index_select(0, ids_).to(at::kFloat));
}

at::Tensor TokenRows::replace_rows(const at::Tensor& embedded, const at::Tensor& ids) const {
  const at::Tensor places = places_.index_select(0, ids.flatten()).view(ids.sizes());
  const at::Tensor own = at::embedding(delta, places.clamp_min(0)).to(embedded.scalar_type());
  return at::where(places.ge(0).unsqueeze(-1), own, embedded);
}

at::Tensor TokenRows::replace_columns(const at::Tensor& logits, const at::Tensor& x) const {
  const at::Tensor own = x.matmul(delta.to(x.scalar_type()).t()).to(logits.scalar_type());
  return logits.index_copy(-1, ids_, own);
}

at::Tensor TokenRows::merged(const at::Tensor& weight) const {
  return weight.detach().index_copy(0, ids_, delta.detach().to(weight.scalar_type()));
}

void attach_tokens(torch::nn::Module& model, const LoraConfig& config) {
  const auto shared = find_shared_head(model);
  const std::vector<std::int64_t>* embedding_ids = nullptr;
  const std::vector<std::int64_t>* head_ids = nullptr;
  for (const auto& [entry, ids] : config.trainable_token_indices) {
    for (const TokenLayer& layer : find_layers(model, entry)) {
      check_layer(layer, ids, config);
      layer.set_tokens(std::make_shared<TokenRows>(ids, layer.weight()));
      if (shared && layer.name == shared->embedding_name) embedding_ids = &ids;
      if (shared && layer.name == shared->head_name) head_ids = &ids;
    }
  }
  if (!embedding_ids) return;
  if (!head_ids || *head_ids == *embedding_ids) {
    check_layer({shared->head_name, nullptr, shared->head}, *embedding_ids, config);
    shared->head->set_tokens(shared->embedding->tokens());
  } else if (config.ensure_weight_tying) {
    refuse_layer("tied layers have other rows", shared->head_name, "the embeddings' token ids");
  }
}

}  // namespace vlm

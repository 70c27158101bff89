#include "vlm/models/parts/tied_head.h"

#include "vlm/core/log.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

constexpr const char* kHeadName = "lm_head.weight";

}  // namespace

bool TiedHead::is_tied() const {
  return is_wanted_ && (!is_filled_ || head_->weight.is_same(embedding_->weight));
}

std::map<std::string, std::string> TiedHead::tied_weights() const {
  if (!is_tied()) return {};
  return {{kHeadName, embedding_name_}};
}

void TiedHead::tie_weights() {
  is_filled_ = true;
  const at::Tensor& embedding = embedding_->weight;
  if (!is_wanted_ || head_->is_quantized() || head_->weight.is_same(embedding)) return;
  if (!head_->weight.is_alias_of(embedding) && !head_->weight.equal(embedding)) {
    log_warning("the config ties lm_head to the embeddings but the weights differ: kept apart");
    is_wanted_ = false;
    return;
  }
  head_->share_weight(embedding);
}

NamedTensors TiedHead::weights(const torch::nn::Module& model) const {
  NamedTensors weights;
  const bool has_separate_head = !is_tied();
  for (const auto& item : model.named_parameters()) {
    const bool is_separate = has_separate_head || item.key() != kHeadName;
    if (is_separate && !is_lora_parameter(item.key())) {
      weights.emplace_back(item.key(), item.value());
    }
  }
  return weights;
}

}  // namespace vlm

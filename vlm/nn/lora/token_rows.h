// Rows of the embeddings, or of the output head, that are trained and stored by themselves.
//
//   trainable_token_indices ─► attach_tokens ─► TokenRows on the layers named
//   ids or hidden states ─► what the base makes of them, with some rows of its weight replaced
//
// Where head and embeddings share a weight and the same rows are trained, the rows are shared too.
// Reference: peft 0.21.2, TrainableTokensLayer and set_additional_trainable_modules.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <vector>

#include "vlm/nn/lora/lora_config.h"

namespace vlm {

// The child "token_adapter" of a layer.
class TokenRows : public torch::nn::Module {
 public:
  // The rows begin with their values in `weight` [rows, features].
  TokenRows(const std::vector<std::int64_t>& ids, const at::Tensor& weight);

  // `embedded` [..., features] holds the base's rows of `ids`; those that are trained are replaced.
  at::Tensor replace_rows(const at::Tensor& embedded, const at::Tensor& ids) const;
  // `logits` [..., rows] is the base's product with `x`; the columns of trained rows are replaced.
  at::Tensor replace_columns(const at::Tensor& logits, const at::Tensor& x) const;
  // `weight` with the trained rows written into it, in its dtype.
  at::Tensor merged(const at::Tensor& weight) const;

  at::Tensor delta;  // [ids, features] float32, the rows themselves

 private:
  at::Tensor ids_;     // [ids] int64
  at::Tensor places_;  // [rows] int64: a row's place in delta, or -1
};

// Throws Error for a layer that isn't there, that is no embedding and no output head, or that
// target_modules or modules_to_save selects too, and for ids out of range.
void attach_tokens(torch::nn::Module& model, const LoraConfig& config);

}  // namespace vlm

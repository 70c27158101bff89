// Rows of the embeddings, or of the output head, that are trained and stored by themselves.
//
//   trainable_token_indices ─► attach_tokens ─► TokenRows on the layers named
//   ids or hidden states ─► what the base makes of them, with some rows of its weight replaced
//
// Where head and embeddings are one weight and get the same rows, these are one too. Reference:
// peft 0.21.2, TrainableTokensLayer and set_additional_trainable_modules.
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
  // `weight` [rows, features] is where the rows begin.
  TokenRows(const std::vector<std::int64_t>& ids, const at::Tensor& weight);

  // `embedded` [..., features], the base's rows of `ids`, with those that are trained replaced.
  at::Tensor replace_rows(const at::Tensor& embedded, const at::Tensor& ids) const;
  // `logits` [..., rows], the base's product with `x`, with the columns of trained rows replaced.
  at::Tensor replace_columns(const at::Tensor& logits, const at::Tensor& x) const;
  // The weight with the rows in it, in its dtype.
  at::Tensor merged(const at::Tensor& weight) const;

  at::Tensor delta;  // [ids, features] float32, the rows themselves

 private:
  at::Tensor ids_;     // [ids] int64
  at::Tensor places_;  // [rows] int64: a row's place in delta, or -1
};

// Throws Error for a layer that isn't there, that is no embedding and no output head, or that is
// adapted or saved as well, and for ids that it doesn't have.
void attach_tokens(torch::nn::Module& model, const LoraConfig& config);

}  // namespace vlm

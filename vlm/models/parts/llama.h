// Llama-style decoder: RMSNorm, grouped-query attention with rotary positions, SwiGLU, KV cache.
//
//   embeddings [B, T, C] ─► hidden [B, T, C] (after the final norm)
//
// The output head is not here: SmolVLM has it beside the text model. Reference: LlamaModel,
// transformers 5.23.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/config/fields.h"
#include "vlm/nn/kv_cache.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/packed_attention.h"

namespace vlm {

struct LlamaConfig {
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::optional<std::int64_t> num_key_value_heads;  // null: as many as heads
  std::optional<std::int64_t> head_dim;             // null: hidden_size / heads
  std::int64_t max_position_embeddings = 2048;
  std::string hidden_act = "silu";
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  double initializer_range = 0.02;
  bool attention_bias = false;
  bool mlp_bias = false;

  Fields fields();
  std::int64_t kv_heads() const { return num_key_value_heads.value_or(num_attention_heads); }
  std::int64_t head_size() const {
    return head_dim.value_or(hidden_size / std::max<std::int64_t>(num_attention_heads, 1));
  }
};

class LlamaDecoderLayer;
struct ForwardPass;

class LlamaModel : public torch::nn::Module {
 public:
  explicit LlamaModel(const LlamaConfig& config);

  // `attention_mask` [B, T] bool, true = a real token; undefined when all are real or a cache is
  // given. With a cache, begin_prefill or begin_extend was called on it.
  at::Tensor forward(const at::Tensor& embeddings, const at::Tensor& attention_mask, KvCache* cache,
                     bool checkpointing);

  // Several samples in one row, [1, T, C]; each sees the tokens that its segment names.
  at::Tensor forward_packed(const at::Tensor& embeddings, const std::vector<Segment>& segments,
                            bool checkpointing);

  // Device and dtype of the norms; matrices may be stored in fewer bits.
  at::TensorOptions options() const { return norm_->weight.options(); }
  const std::shared_ptr<Embedding>& embed_tokens() const { return embed_tokens_; }

 private:
  at::Tensor run_layers(at::Tensor x, const ForwardPass& pass, bool checkpointing);

  LlamaConfig config_;
  std::shared_ptr<Embedding> embed_tokens_;
  std::vector<std::shared_ptr<LlamaDecoderLayer>> layers_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace vlm

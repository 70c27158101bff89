// One block of a decoder: grouped-query attention with rotary positions, and SwiGLU, each behind a
// norm and added to its input.
//
// Projections are published one by one (q_proj, k_proj, v_proj; gate_proj, up_proj) or as one
// matrix (qkv_proj; gate_up_proj; InternLM2's wqkv), and stay as they are published: adapters know
// them by these names. Reference: LlamaDecoderLayer, Qwen2's, Qwen3's and Phi3's,
// transformers 5.23; of InternLM2 the public code of OpenGVLab/InternVL.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "vlm/models/decoder/decoder_config.h"
#include "vlm/nn/kv_cache.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/packed_attention.h"
#include "vlm/nn/rotary.h"

namespace vlm {

// What a decoder calls its modules.
struct DecoderNames {
  const char* embedding = "embed_tokens";
  const char* attention = "self_attn";
  const char* mlp = "mlp";
  const char* attention_norm = "input_layernorm";
  const char* mlp_norm = "post_attention_layernorm";
  const char* qkv = "qkv_proj";
  const char* output = "o_proj";
  const char *gate = "gate_proj", *up = "up_proj", *down = "down_proj";

  static DecoderNames of(const DecoderConfig& config);
};

// What every layer of one forward pass shares.
struct ForwardPass {
  RotaryTable rotary;
  at::Tensor mask;                          // [B, 1, T, T] bool; undefined: causal
  KvCache* cache = nullptr;                 // may be null
  std::shared_ptr<const PackedRow> packed;  // may be null
};

class DecoderAttention : public torch::nn::Module {
 public:
  DecoderAttention(const DecoderConfig& config, std::int64_t layer);

  // residual + the attention of x. With a cache, the memory of `residual` may be written to.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const ForwardPass& pass);

 private:
  struct Projected {
    at::Tensor q, k, v;  // [B, H or K, T, D]
  };

  at::Tensor project_together(const at::Tensor& x, const ForwardPass& pass) const;
  Projected project(const at::Tensor& x, const ForwardPass& pass) const;
  Projected project_groups(const at::Tensor& x, const ForwardPass& pass) const;

  std::int64_t layer_, heads_, kv_heads_, head_dim_;
  bool is_grouped_;  // qkv_proj has the rows of one key-value head and its queries together
  std::shared_ptr<Linear> qkv_proj_;                  // or:
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_;  // null beside qkv_proj
  std::shared_ptr<Linear> o_proj_;
  std::shared_ptr<RmsNorm> q_norm_, k_norm_;  // of each head's D numbers; may be null
};

class DecoderMlp : public torch::nn::Module {
 public:
  explicit DecoderMlp(const DecoderConfig& config);

  // residual + the MLP of x. With a cache, the memory of `residual` may be written to.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const ForwardPass& pass);

 private:
  std::shared_ptr<Linear> gate_up_proj_;         // or:
  std::shared_ptr<Linear> gate_proj_, up_proj_;  // null beside gate_up_proj
  std::shared_ptr<Linear> down_proj_;
};

class DecoderLayer : public torch::nn::Module {
 public:
  DecoderLayer(const DecoderConfig& config, std::int64_t layer);

  // With a cache, the memory of `x` may be written to.
  at::Tensor forward(const at::Tensor& x, const ForwardPass& pass);

 private:
  std::shared_ptr<DecoderAttention> self_attn_;
  std::shared_ptr<DecoderMlp> mlp_;
  std::shared_ptr<RmsNorm> input_layernorm_, post_attention_layernorm_;
};

}  // namespace vlm

// The decoder of Llama, Qwen2, Qwen3 and Phi: blocks behind a token embedding, and a final norm.
//
//   embeddings [B, T, C] ─► hidden [B, T, C] (after the final norm)
//
// The output head is not here: families have it beside the text model. Reference: LlamaModel,
// Qwen2Model, Qwen3Model and Phi3Model, transformers 5.23.
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

class DecoderLayer;
struct ForwardPass;

class TextDecoder : public torch::nn::Module {
 public:
  explicit TextDecoder(const DecoderConfig& config);

  // `attention_mask` [B, T] bool, true = a real token; undefined when all are real or a cache is
  // given. With a cache, begin_prefill or begin_extend was called on it. `positions` [B, T], or [3,
  // B, T] where the config has sections; undefined: real tokens are counted. Embeddings may be
  // several times as wide as C: the k-th vector behind the first is added behind layer k.
  at::Tensor forward(const at::Tensor& embeddings, const at::Tensor& attention_mask, KvCache* cache,
                     bool checkpointing, const at::Tensor& positions = {});

  // Several samples in one row, [1, T, C]; each sees the tokens that its segment names.
  at::Tensor forward_packed(const at::Tensor& embeddings, const std::vector<Segment>& segments,
                            bool checkpointing, const at::Tensor& positions = {});

  // Device and dtype of the norms; matrices may be stored in fewer bits.
  at::TensorOptions options() const { return norm_->weight.options(); }
  const std::shared_ptr<Embedding>& embed_tokens() const { return embed_tokens_; }
  const DecoderConfig& config() const { return config_; }
  KvCacheShape cache_shape() const;
  // The length beyond which all tokens of a sequence turn otherwise (LongRoPE); 0: there is none.
  // With a cache, sequences that grow beyond it are computed again, as in transformers.
  std::int64_t switch_length() const { return rotary_.switch_length(); }

 private:
  at::Tensor forward_cached(const at::Tensor& embeddings, KvCache& cache,
                            const at::Tensor& positions);
  at::Tensor extend_across_switch(const at::Tensor& embeddings, KvCache& cache);
  at::Tensor compute_again(const at::Tensor& inputs, KvCache& cache, std::int64_t row);
  at::Tensor run_layers(at::Tensor x, const ForwardPass& pass, bool checkpointing);

  DecoderConfig config_;
  Rotary rotary_;
  std::shared_ptr<Embedding> embed_tokens_;
  std::vector<std::shared_ptr<DecoderLayer>> layers_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace vlm

#include "vlm/models/llama.h"

#include <ATen/ops/arange.h>
#include <c10/core/GradMode.h>

#include "vlm/core/concat.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/mlp.h"
#include "vlm/nn/packed_attention.h"
#include "vlm/nn/rotary.h"
#include "vlm/nn/upload.h"

namespace vlm {

Fields LlamaConfig::fields() {
  return {{"vocab_size", &vocab_size},
          {"hidden_size", &hidden_size},
          {"intermediate_size", &intermediate_size},
          {"num_hidden_layers", &num_hidden_layers},
          {"num_attention_heads", &num_attention_heads},
          {"num_key_value_heads", &num_key_value_heads},
          {"head_dim", &head_dim},
          {"max_position_embeddings", &max_position_embeddings},
          {"hidden_act", &hidden_act, "", {"silu"}},
          {"rms_norm_eps", &rms_norm_eps},
          {"rope_theta", &rope_theta},
          {"initializer_range", &initializer_range},
          {"attention_bias", &attention_bias},
          {"mlp_bias", &mlp_bias}};
}

// What every layer of one forward pass shares.
struct ForwardPass {
  RotaryTable rotary;
  at::Tensor mask;                          // [B, 1, T, T] bool; undefined: causal
  KvCache* cache;                           // may be null
  std::shared_ptr<const PackedRow> packed;  // may be null
};

namespace {

at::Tensor attend(const ForwardPass& pass, std::int64_t layer, const at::Tensor& q,
                  const at::Tensor& k, const at::Tensor& v, at::ScalarType product_dtype) {
  if (pass.cache) return pass.cache->attend(layer, q, k, v, product_dtype);
  if (pass.packed) return packed_attention(q, k, v, pass.packed);
  if (pass.mask.defined()) return grouped_attention(q, k, v, pass.mask, /*is_causal=*/false);
  return causal_attention(q, k, v, product_dtype);
}

}  // namespace

class LlamaAttention : public torch::nn::Module {
 public:
  LlamaAttention(const LlamaConfig& config, std::int64_t layer)
      : layer_(layer), head_dim_(config.head_size()) {
    const auto make = [&](const char* name, std::int64_t in, std::int64_t out) {
      return register_module(name, std::make_shared<Linear>(in, out, config.attention_bias));
    };
    const std::int64_t width = config.num_attention_heads * head_dim_;
    const std::int64_t kv_width = config.kv_heads() * head_dim_;
    q_proj_ = make("q_proj", config.hidden_size, width);
    k_proj_ = make("k_proj", config.hidden_size, kv_width);
    v_proj_ = make("v_proj", config.hidden_size, kv_width);
    o_proj_ = make("o_proj", width, config.hidden_size);
  }

  // residual + the attention of x. With a cache, the memory of `residual` may be written to.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const ForwardPass& pass) {
    const auto [q, k, v] = project(x, pass);
    const at::Tensor attended =
        attend(pass, layer_, q, k, v, q_proj_->product_dtype);  // [B, H, T, D]
    const at::Tensor flat = attended.transpose(1, 2).flatten(2);
    return pass.cache ? add_projected(residual, *o_proj_, flat)
                      : add_residual(o_proj_->forward(flat), residual);
  }

 private:
  struct Projected {
    at::Tensor q, k, v;  // [B, H or K, T, D]
  };

  Projected project(const at::Tensor& x, const ForwardPass& pass) const {
    const RotaryTable& rotary = pass.rotary;
    const auto split = [&](const at::Tensor& t) {  // [B, T, heads · D] → [B, heads, T, D]
      return t.view({x.size(0), x.size(1), -1, head_dim_}).transpose(1, 2);
    };
    const std::vector<const Linear*> layers = {q_proj_.get(), k_proj_.get(), v_proj_.get()};
    const at::Tensor joined = pass.cache ? forward_joined(x, layers) : at::Tensor();
    if (joined.defined()) {
      const at::Tensor all = split(joined);
      const std::int64_t heads = q_proj_->out_features() / head_dim_;
      const std::int64_t kv_heads = k_proj_->out_features() / head_dim_;
      const at::Tensor turned = apply_rotary(all.narrow(1, 0, heads + kv_heads), rotary);
      return {turned.narrow(1, 0, heads), turned.narrow(1, heads, kv_heads),
              all.narrow(1, heads + kv_heads, kv_heads)};
    }
    const std::vector<at::Tensor> projected = forward_each(x, layers);
    return {apply_rotary(split(projected[0]), rotary), apply_rotary(split(projected[1]), rotary),
            split(projected[2])};
  }

  std::int64_t layer_;
  std::int64_t head_dim_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, o_proj_;
};

class LlamaMlp : public torch::nn::Module {
 public:
  explicit LlamaMlp(const LlamaConfig& config) {
    const auto make = [&](const char* name, std::int64_t in, std::int64_t out) {
      return register_module(name, std::make_shared<Linear>(in, out, config.mlp_bias));
    };
    gate_proj_ = make("gate_proj", config.hidden_size, config.intermediate_size);
    up_proj_ = make("up_proj", config.hidden_size, config.intermediate_size);
    down_proj_ = make("down_proj", config.intermediate_size, config.hidden_size);
  }

  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const ForwardPass& pass) {
    if (pass.cache) return add_gated_mlp(residual, x, *gate_proj_, *up_proj_, *down_proj_);
    return add_residual(gated_mlp(x, *gate_proj_, *up_proj_, *down_proj_), residual);
  }

 private:
  std::shared_ptr<Linear> gate_proj_, up_proj_, down_proj_;
};

class LlamaDecoderLayer : public torch::nn::Module {
 public:
  LlamaDecoderLayer(const LlamaConfig& config, std::int64_t layer) {
    const auto norm = [&](const char* name) {
      return register_module(name,
                             std::make_shared<RmsNorm>(config.hidden_size, config.rms_norm_eps));
    };
    self_attn_ = register_module("self_attn", std::make_shared<LlamaAttention>(config, layer));
    mlp_ = register_module("mlp", std::make_shared<LlamaMlp>(config));
    input_layernorm_ = norm("input_layernorm");
    post_attention_layernorm_ = norm("post_attention_layernorm");
  }

  // With a cache, the memory of `x` may be written to.
  at::Tensor forward(const at::Tensor& x, const ForwardPass& pass) {
    const at::Tensor attended = self_attn_->forward(input_layernorm_->forward(x), x, pass);
    return mlp_->forward(post_attention_layernorm_->forward(attended), attended, pass);
  }

 private:
  std::shared_ptr<LlamaAttention> self_attn_;
  std::shared_ptr<LlamaMlp> mlp_;
  std::shared_ptr<RmsNorm> input_layernorm_, post_attention_layernorm_;
};

LlamaModel::LlamaModel(const LlamaConfig& config) : config_(config) {
  embed_tokens_ = register_module(
      "embed_tokens", std::make_shared<Embedding>(config.vocab_size, config.hidden_size));
  auto list = register_module("layers", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(
        list->register_module(concat(i), std::make_shared<LlamaDecoderLayer>(config, i)));
  }
  norm_ =
      register_module("norm", std::make_shared<RmsNorm>(config.hidden_size, config.rms_norm_eps));
}

namespace {

// Real tokens are counted from 0, padding gets 0. [B, T]
at::Tensor make_positions(const at::Tensor& embeddings, const at::Tensor& attention_mask) {
  if (!attention_mask.defined()) {
    return at::arange(embeddings.size(1), embeddings.options().dtype(at::kLong)).unsqueeze(0);
  }
  return (attention_mask.to(at::kLong).cumsum(1) - 1).clamp_min(0);
}

// Causal and padding mask in one, [B, 1, T, T] bool; a row of padding sees itself, so that no
// softmax is empty.
at::Tensor make_mask(const at::Tensor& attention_mask) {
  const at::Tensor tokens =
      at::arange(attention_mask.size(1), attention_mask.options().dtype(at::kLong));
  const at::Tensor keys = tokens.view({1, 1, 1, -1}), queries = tokens.view({1, 1, -1, 1});
  const at::Tensor real = attention_mask.to(at::kBool).unsqueeze(1).unsqueeze(1);
  return (keys <= queries).logical_and(real).logical_or(keys == queries);
}

ForwardPass begin_pass(const LlamaConfig& config, const at::Tensor& embeddings,
                       const at::Tensor& attention_mask, KvCache* cache) {
  TORCH_CHECK(!cache || !attention_mask.defined(), "the cache knows which tokens are real");
  ForwardPass pass{.cache = cache};
  const at::Tensor positions =
      cache ? cache->positions() : make_positions(embeddings, attention_mask);
  pass.rotary =
      make_rotary_table(positions, config.head_size(), config.rope_theta, embeddings.scalar_type());
  if (attention_mask.defined()) pass.mask = make_mask(attention_mask);
  return pass;
}

}  // namespace

at::Tensor LlamaModel::forward(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                               KvCache* cache, bool checkpointing) {
  const ForwardPass pass = begin_pass(config_, embeddings, attention_mask, cache);
  const at::Tensor hidden = run_layers(embeddings, pass, checkpointing);
  if (cache) cache->end_pass();
  return hidden;
}

at::Tensor LlamaModel::forward_packed(const at::Tensor& embeddings,
                                      const std::vector<Segment>& segments, bool checkpointing) {
  ForwardPass pass{.cache = nullptr, .packed = std::make_shared<const PackedRow>(segments)};
  pass.rotary =
      make_rotary_table(upload(packed_positions(segments), embeddings.device()),
                        config_.head_size(), config_.rope_theta, embeddings.scalar_type());
  return run_layers(embeddings, pass, checkpointing);
}

at::Tensor LlamaModel::run_layers(at::Tensor x, const ForwardPass& pass, bool checkpointing) {
  if (pass.cache && !x.is_cpu()) x = x.clone();  // the layers write into it
  for (const auto& layer : layers_) {
    const auto block = [&layer, pass](const at::Tensor& in) { return layer->forward(in, pass); };
    // Below the first layer that learns nothing is recorded.
    const c10::AutoGradMode recording(needs_gradient(*layer, x));
    x = checkpointing ? checkpoint_activations(*layer, block, x) : block(x);
  }
  return norm_->forward(x);
}

}  // namespace vlm

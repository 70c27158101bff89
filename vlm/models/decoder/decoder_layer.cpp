#include "vlm/models/decoder/decoder_layer.h"

#include "vlm/nn/attention.h"
#include "vlm/nn/mlp.h"

namespace vlm {
namespace {

at::Tensor attend(const ForwardPass& pass, std::int64_t layer, const at::Tensor& q,
                  const at::Tensor& k, const at::Tensor& v, at::ScalarType product_dtype) {
  if (pass.cache) return pass.cache->attend(layer, q, k, v, product_dtype);
  if (pass.packed) return packed_attention(q, k, v, pass.packed);
  if (pass.mask.defined()) return grouped_attention(q, k, v, pass.mask, /*is_causal=*/false);
  return causal_attention(q, k, v, product_dtype);
}

}  // namespace

DecoderNames DecoderNames::of(const DecoderConfig& config) {
  if (!config.is_internlm2()) return {};
  return {.embedding = "tok_embeddings",
          .attention = "attention",
          .mlp = "feed_forward",
          .attention_norm = "attention_norm",
          .mlp_norm = "ffn_norm",
          .qkv = "wqkv",
          .output = "wo",
          .gate = "w1",
          .up = "w3",
          .down = "w2"};
}

DecoderAttention::DecoderAttention(const DecoderConfig& config, std::int64_t layer)
    : layer_(layer),
      heads_(config.num_attention_heads),
      kv_heads_(config.kv_heads()),
      head_dim_(config.head_size()),
      is_grouped_(config.is_internlm2()) {
  const DecoderNames names = DecoderNames::of(config);
  const auto project = [&](const char* name, std::int64_t heads) {
    return register_module(name, std::make_shared<Linear>(config.hidden_size, heads * head_dim_,
                                                          config.has_input_biases()));
  };
  if (config.is_fused() || is_grouped_) {
    qkv_proj_ = project(names.qkv, heads_ + 2 * kv_heads_);
  } else {
    q_proj_ = project("q_proj", heads_);
    k_proj_ = project("k_proj", kv_heads_);
    v_proj_ = project("v_proj", kv_heads_);
  }
  o_proj_ = register_module(
      names.output,
      std::make_shared<Linear>(heads_ * head_dim_, config.hidden_size, config.has_output_bias()));
  if (!config.has_head_norms()) return;
  for (auto [name, norm] : {std::pair{"q_norm", &q_norm_}, std::pair{"k_norm", &k_norm_}}) {
    *norm = register_module(name, std::make_shared<RmsNorm>(head_dim_, config.rms_norm_eps));
  }
}

at::Tensor DecoderAttention::forward(const at::Tensor& x, const at::Tensor& residual,
                                     const ForwardPass& pass) {
  const auto [q, k, v] = project(x, pass);
  const at::Tensor attended =
      attend(pass, layer_, q, k, v, o_proj_->product_dtype);  // [B, H, T, D]
  const at::Tensor flat = attended.transpose(1, 2).flatten(2);
  return pass.cache ? add_projected(residual, *o_proj_, flat)
                    : add_residual(o_proj_->forward(flat), residual);
}

// [B, T, (H + 2 K) · D]; undefined where q, k and v are computed one by one.
at::Tensor DecoderAttention::project_together(const at::Tensor& x, const ForwardPass& pass) const {
  if (qkv_proj_) return qkv_proj_->forward(x);
  if (!pass.cache) return {};
  return forward_joined(x, {q_proj_.get(), k_proj_.get(), v_proj_.get()});
}

// Of every key-value head: its queries, then k, then v.
DecoderAttention::Projected DecoderAttention::project_groups(const at::Tensor& x,
                                                             const ForwardPass& pass) const {
  const std::int64_t queries = heads_ / kv_heads_;
  const at::Tensor all =
      qkv_proj_->forward(x).view({x.size(0), x.size(1), kv_heads_, queries + 2, head_dim_});
  const auto turn = [&](const at::Tensor& t) {  // [B, T, heads, D] → [B, heads, T, D]
    return apply_rotary(t.transpose(1, 2), pass.rotary);
  };
  return {turn(all.narrow(3, 0, queries).flatten(2, 3)), turn(all.select(3, queries)),
          all.select(3, queries + 1).transpose(1, 2)};
}

DecoderAttention::Projected DecoderAttention::project(const at::Tensor& x,
                                                      const ForwardPass& pass) const {
  if (is_grouped_) return project_groups(x, pass);
  const auto split = [&](const at::Tensor& t) {  // [B, T, heads · D] → [B, heads, T, D]
    return t.view({x.size(0), x.size(1), -1, head_dim_}).transpose(1, 2);
  };
  const auto turn = [&](const at::Tensor& t, const std::shared_ptr<RmsNorm>& norm) {
    return apply_rotary(norm ? norm->forward(t) : t, pass.rotary);
  };
  const at::Tensor together = project_together(x, pass);
  if (!together.defined()) {
    const std::vector<at::Tensor> each =
        forward_each(x, {q_proj_.get(), k_proj_.get(), v_proj_.get()});
    return {turn(split(each[0]), q_norm_), turn(split(each[1]), k_norm_), split(each[2])};
  }
  const at::Tensor all = split(together);
  const at::Tensor v = all.narrow(1, heads_ + kv_heads_, kv_heads_);
  if (q_norm_) {
    return {turn(all.narrow(1, 0, heads_), q_norm_),
            turn(all.narrow(1, heads_, kv_heads_), k_norm_), v};
  }
  const at::Tensor turned = apply_rotary(all.narrow(1, 0, heads_ + kv_heads_), pass.rotary);
  return {turned.narrow(1, 0, heads_), turned.narrow(1, heads_, kv_heads_), v};
}

DecoderMlp::DecoderMlp(const DecoderConfig& config) {
  const DecoderNames names = DecoderNames::of(config);
  const auto make = [&](const char* name, std::int64_t in, std::int64_t out) {
    return register_module(name, std::make_shared<Linear>(in, out, config.has_mlp_biases()));
  };
  if (config.is_fused()) {
    gate_up_proj_ = make("gate_up_proj", config.hidden_size, 2 * config.intermediate_size);
  } else {
    gate_proj_ = make(names.gate, config.hidden_size, config.intermediate_size);
    up_proj_ = make(names.up, config.hidden_size, config.intermediate_size);
  }
  down_proj_ = make(names.down, config.intermediate_size, config.hidden_size);
}

at::Tensor DecoderMlp::forward(const at::Tensor& x, const at::Tensor& residual,
                               const ForwardPass& pass) {
  if (gate_up_proj_) return add_residual(fused_gated_mlp(x, *gate_up_proj_, *down_proj_), residual);
  if (pass.cache) return add_gated_mlp(residual, x, *gate_proj_, *up_proj_, *down_proj_);
  return add_residual(gated_mlp(x, *gate_proj_, *up_proj_, *down_proj_), residual);
}

DecoderLayer::DecoderLayer(const DecoderConfig& config, std::int64_t layer) {
  const auto norm = [&](const char* name) {
    return register_module(name,
                           std::make_shared<RmsNorm>(config.hidden_size, config.rms_norm_eps));
  };
  const DecoderNames names = DecoderNames::of(config);
  self_attn_ = register_module(names.attention, std::make_shared<DecoderAttention>(config, layer));
  mlp_ = register_module(names.mlp, std::make_shared<DecoderMlp>(config));
  input_layernorm_ = norm(names.attention_norm);
  post_attention_layernorm_ = norm(names.mlp_norm);
}

at::Tensor DecoderLayer::forward(const at::Tensor& x, const ForwardPass& pass) {
  const at::Tensor attended = self_attn_->forward(input_layernorm_->forward(x), x, pass);
  return mlp_->forward(post_attention_layernorm_->forward(attended), attended, pass);
}

}  // namespace vlm

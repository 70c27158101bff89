#include "vlm/models/internvl/intern_vit.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bicubic2d.h>

#include "vlm/core/concat.h"
#include "vlm/models/parts/vision_norm.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/mlp.h"

namespace vlm {

namespace {

// What the encoder's modules are called.
struct InternVitNames {
  const char *first = "cls_token", *positions = "position_embeddings";
  const char *patches = "patch_embeddings", *layers = "layer";
  const char *attention = "attention", *projection = "projection_layer";
  const char *attention_norm = "layernorm_before", *mlp_norm = "layernorm_after";
  const char *attention_scale = "lambda_1", *mlp_scale = "lambda_2";

  static InternVitNames of(const InternVitConfig& config) {
    if (!config.is_original) return {};
    return {.first = "class_embedding",
            .positions = "position_embedding",
            .patches = "patch_embedding",
            .layers = "layers",
            .attention = "attn",
            .projection = "proj",
            .attention_norm = "norm1",
            .mlp_norm = "norm2",
            .attention_scale = "ls1",
            .mlp_scale = "ls2"};
  }
};

}  // namespace

// The convolution's parameters, in the layout of transformers under "projection".
class InternVitPatches : public torch::nn::Module {
 public:
  explicit InternVitPatches(const InternVitConfig& c) : patch_size_(c.patch_size) {
    torch::nn::Module* holder = this;
    if (!c.is_original) {
      holder = register_module("projection", std::make_shared<torch::nn::Module>()).get();
    }
    weight_ = holder->register_parameter("weight",
                                         at::empty({c.hidden_size, 3, c.patch_size, c.patch_size}));
    bias_ = holder->register_parameter("bias", at::empty({c.hidden_size}));
  }

  at::Tensor forward(const at::Tensor& tiles) {
    const std::vector<std::int64_t> stride = {patch_size_, patch_size_};
    const auto dtype = tiles.scalar_type();
    return at::conv2d(tiles, weight_.to(dtype), bias_.to(dtype), stride).flatten(2).transpose(1, 2);
  }

 private:
  std::int64_t patch_size_;
  at::Tensor weight_, bias_;
};

class InternVitEmbeddings : public torch::nn::Module {
 public:
  explicit InternVitEmbeddings(const InternVitConfig& c)
      : grid_side_(c.grid_side()), patch_size_(c.patch_size) {
    const InternVitNames names = InternVitNames::of(c);
    cls_token_ = register_parameter(names.first, at::empty({1, 1, c.hidden_size}));
    position_embeddings_ = register_parameter(
        names.positions, at::empty({1, grid_side_ * grid_side_ + 1, c.hidden_size}));
    patches_ = register_module(names.patches, std::make_shared<InternVitPatches>(c));
  }

  // [N, 3, S, S] → [N, 1 + P, C]
  at::Tensor forward(const at::Tensor& tiles) {
    const at::Tensor patches = patches_->forward(tiles);
    const at::Tensor first =
        cls_token_.to(patches.scalar_type()).expand({patches.size(0), 1, patches.size(2)});
    const at::Tensor positions = positions_for(tiles.size(2) / patch_size_);
    return at::cat({first, patches}, 1) + positions.to(patches.scalar_type());
  }

 private:
  at::Tensor positions_for(std::int64_t side) const {
    if (side == grid_side_) return position_embeddings_;
    const at::Tensor grid = position_embeddings_.narrow(1, 1, grid_side_ * grid_side_)
                                .view({1, grid_side_, grid_side_, -1})
                                .permute({0, 3, 1, 2});
    const std::vector<std::int64_t> size = {side, side};
    const at::Tensor resized =
        at::upsample_bicubic2d(grid, size, /*align_corners=*/false).flatten(2).transpose(1, 2);
    return at::cat({position_embeddings_.narrow(1, 0, 1), resized}, 1);
  }

  std::int64_t grid_side_, patch_size_;
  at::Tensor cls_token_, position_embeddings_;
  std::shared_ptr<InternVitPatches> patches_;
};

// q, k and v are three layers in the layout of transformers, and one in the original.
class InternVitAttention : public torch::nn::Module {
 public:
  explicit InternVitAttention(const InternVitConfig& c) : heads_(c.num_attention_heads) {
    const std::int64_t width = c.hidden_size;
    const auto make = [&](const char* name, std::int64_t out, bool has_bias) {
      return register_module(name, std::make_shared<Linear>(width, out, has_bias));
    };
    if (c.is_original) {
      qkv_ = make("qkv", 3 * width, c.attention_bias);
    } else {
      q_proj_ = make("q_proj", width, c.attention_bias);
      k_proj_ = make("k_proj", width, c.attention_bias);
      v_proj_ = make("v_proj", width, c.attention_bias);
    }
    projection_ = make(InternVitNames::of(c).projection, width, true);
    if (!c.has_qk_norms) return;
    const double eps = c.is_original ? c.layer_norm_eps : 1e-6;
    q_norm_ = register_module("q_norm", std::make_shared<RmsNorm>(width, eps));
    k_norm_ = register_module("k_norm", std::make_shared<RmsNorm>(width, eps));
  }

  // residual + scale · the attention of x
  at::Tensor forward(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& scale) {
    return add_layer(residual, attend(x), *projection_, scale);
  }

 private:
  at::Tensor attend(const at::Tensor& x) const {  // [N, P, C]
    if (!q_norm_) {
      return self_attention(
          x, {qkv_ ? qkv_.get() : q_proj_.get(), k_proj_.get(), v_proj_.get(), heads_}, {});
    }
    const auto split = [&](const at::Tensor& t, const std::shared_ptr<RmsNorm>& norm) {
      const at::Tensor normed = norm ? norm->forward(t) : t;
      return normed.view({x.size(0), x.size(1), heads_, -1}).transpose(1, 2);  // [N, H, P, D]
    };
    const std::vector<at::Tensor> each = project(x);
    const at::Tensor attended =
        grouped_attention(split(each[0], q_norm_), split(each[1], k_norm_), split(each[2], {}), {},
                          /*is_causal=*/false, projection_->product_dtype);
    return attended.transpose(1, 2).flatten(2);
  }

  std::vector<at::Tensor> project(const at::Tensor& x) const {  // q, k and v
    if (qkv_) return qkv_->forward(x).chunk(3, -1);
    return forward_each(x, {q_proj_.get(), k_proj_.get(), v_proj_.get()});
  }

  std::int64_t heads_;
  std::shared_ptr<Linear> qkv_;                       // or:
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_;  // null beside qkv
  std::shared_ptr<Linear> projection_;
  std::shared_ptr<RmsNorm> q_norm_, k_norm_;  // of all heads together; may be null
};

class InternVitMlp : public torch::nn::Module {
 public:
  explicit InternVitMlp(const InternVitConfig& c) {
    fc1_ =
        register_module("fc1", std::make_shared<Linear>(c.hidden_size, c.intermediate_size, true));
    fc2_ =
        register_module("fc2", std::make_shared<Linear>(c.intermediate_size, c.hidden_size, true));
  }

  at::Tensor forward(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& scale) {
    return add_gelu_mlp(residual, x, *fc1_, *fc2_, Gelu::kErf, scale);
  }

 private:
  std::shared_ptr<Linear> fc1_, fc2_;
};

class InternVitLayer : public torch::nn::Module {
 public:
  explicit InternVitLayer(const InternVitConfig& c) {
    const InternVitNames names = InternVitNames::of(c);
    lambda_1_ = register_parameter(names.attention_scale, at::empty({c.hidden_size}));
    lambda_2_ = register_parameter(names.mlp_scale, at::empty({c.hidden_size}));
    attention_ = register_module(names.attention, std::make_shared<InternVitAttention>(c));
    mlp_ = register_module("mlp", std::make_shared<InternVitMlp>(c));
    const auto norm = [&](const char* name) {  // in InternViT-6B without mean and bias
      return VisionNorm(*this, name, c.hidden_size, c.layer_norm_eps, c.has_rms_norms);
    };
    layernorm_before_ = norm(names.attention_norm);
    layernorm_after_ = norm(names.mlp_norm);
  }

  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor attended = attention_->forward(x, layernorm_before_.forward(x), lambda_1_);
    return mlp_->forward(attended, layernorm_after_.forward(attended), lambda_2_);
  }

 private:
  at::Tensor lambda_1_, lambda_2_;
  std::shared_ptr<InternVitAttention> attention_;
  std::shared_ptr<InternVitMlp> mlp_;
  VisionNorm layernorm_before_, layernorm_after_;
};

InternVit::InternVit(const InternVitConfig& config) {
  embeddings_ = register_module("embeddings", std::make_shared<InternVitEmbeddings>(config));
  auto encoder = register_module("encoder", std::make_shared<torch::nn::Module>());
  auto list = encoder->register_module(InternVitNames::of(config).layers,
                                       std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(list->register_module(concat(i), std::make_shared<InternVitLayer>(config)));
  }
}

at::Tensor InternVit::forward(const at::Tensor& tiles, bool checkpointing) {
  at::Tensor x = embeddings_->forward(tiles);
  for (const auto& layer : layers_) {
    const auto block = [&layer](const at::Tensor& in) { return layer->forward(in); };
    x = checkpointing ? checkpoint_activations(*layer, block, x) : block(x);
  }
  return x.narrow(1, 1, x.size(1) - 1);
}

}  // namespace vlm

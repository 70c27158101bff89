#include "vlm/models/parts/siglip.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "vlm/core/concat.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/mlp.h"

namespace vlm {

Fields SiglipConfig::fields() {
  return {{"hidden_size", &hidden_size},
          {"intermediate_size", &intermediate_size},
          {"num_hidden_layers", &num_hidden_layers},
          {"num_attention_heads", &num_attention_heads},
          {"num_channels", &num_channels},
          {"image_size", &image_size},
          {"patch_size", &patch_size},
          {"hidden_act", &hidden_act, "", {"gelu_pytorch_tanh"}},
          {"layer_norm_eps", &layer_norm_eps},
          {"initializer_range", &initializer_range}};
}

// The convolution's parameters under "patch_embedding".
class PatchEmbedding : public torch::nn::Module {
 public:
  explicit PatchEmbedding(const SiglipConfig& config) : patch_size_(config.patch_size) {
    weight = register_parameter("weight", at::empty({config.hidden_size, config.num_channels,
                                                     config.patch_size, config.patch_size}));
    bias = register_parameter("bias", at::empty({config.hidden_size}));
  }

  // [N, 3, S, S] → [N, P, C]; pixels beyond the last whole patch are dropped.
  at::Tensor forward(const at::Tensor& pixel_values) {
    const std::vector<std::int64_t> stride = {patch_size_, patch_size_};
    const auto dtype = pixel_values.scalar_type();
    return at::conv2d(pixel_values, weight.to(dtype), bias.to(dtype), stride)
        .flatten(2)
        .transpose(1, 2);
  }

  at::Tensor weight, bias;

 private:
  std::int64_t patch_size_;
};

class SiglipEmbeddings : public torch::nn::Module {
 public:
  explicit SiglipEmbeddings(const SiglipConfig& config) : grid_side_(config.grid_side()) {
    patch_embedding_ = register_module("patch_embedding", std::make_shared<PatchEmbedding>(config));
    position_embedding_ =
        register_module("position_embedding",
                        std::make_shared<Embedding>(grid_side_ * grid_side_, config.hidden_size));
  }

  at::Tensor forward(const at::Tensor& pixel_values, const at::Tensor& patch_mask) {
    const at::Tensor patches = patch_embedding_->forward(pixel_values);
    const at::Tensor positions =
        position_embedding_->forward(make_position_ids(patch_mask, grid_side_));
    return patches + positions.to(patches.scalar_type());
  }

 private:
  std::int64_t grid_side_;
  std::shared_ptr<PatchEmbedding> patch_embedding_;
  std::shared_ptr<Embedding> position_embedding_;
};

class SiglipAttention : public torch::nn::Module {
 public:
  explicit SiglipAttention(const SiglipConfig& config) : heads_(config.num_attention_heads) {
    const auto make = [&](const char* name) {
      return register_module(
          name, std::make_shared<Linear>(config.hidden_size, config.hidden_size, true));
    };
    k_proj_ = make("k_proj");
    v_proj_ = make("v_proj");
    q_proj_ = make("q_proj");
    out_proj_ = make("out_proj");
  }

  // residual and x [N, P, C]; mask [N, 1, 1, P] bool, or undefined
  at::Tensor forward(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& mask) {
    const at::Tensor attended =
        self_attention(x, {q_proj_.get(), k_proj_.get(), v_proj_.get(), heads_}, mask);
    return add_layer(residual, attended, *out_proj_);
  }

 private:
  std::int64_t heads_;
  std::shared_ptr<Linear> k_proj_, v_proj_, q_proj_, out_proj_;
};

class SiglipMlp : public torch::nn::Module {
 public:
  explicit SiglipMlp(const SiglipConfig& config) {
    fc1_ = register_module(
        "fc1", std::make_shared<Linear>(config.hidden_size, config.intermediate_size, true));
    fc2_ = register_module(
        "fc2", std::make_shared<Linear>(config.intermediate_size, config.hidden_size, true));
  }

  at::Tensor forward(const at::Tensor& residual, const at::Tensor& x) {
    return add_gelu_mlp(residual, x, *fc1_, *fc2_, Gelu::kTanh);
  }

 private:
  std::shared_ptr<Linear> fc1_, fc2_;
};

class SiglipEncoderLayer : public torch::nn::Module {
 public:
  explicit SiglipEncoderLayer(const SiglipConfig& config) {
    const auto norm = [&](const char* name) {
      return register_module(
          name, std::make_shared<LayerNorm>(config.hidden_size, config.layer_norm_eps));
    };
    self_attn_ = register_module("self_attn", std::make_shared<SiglipAttention>(config));
    layer_norm1_ = norm("layer_norm1");
    mlp_ = register_module("mlp", std::make_shared<SiglipMlp>(config));
    layer_norm2_ = norm("layer_norm2");
  }

  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) {
    const at::Tensor attended = self_attn_->forward(x, layer_norm1_->forward(x), mask);
    return mlp_->forward(attended, layer_norm2_->forward(attended));
  }

 private:
  std::shared_ptr<SiglipAttention> self_attn_;
  std::shared_ptr<LayerNorm> layer_norm1_, layer_norm2_;
  std::shared_ptr<SiglipMlp> mlp_;
};

// Holds the blocks under "layers.{i}".
class SiglipEncoder : public torch::nn::Module {
 public:
  explicit SiglipEncoder(const SiglipConfig& config) {
    auto list = register_module("layers", std::make_shared<torch::nn::Module>());
    for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers_.push_back(
          list->register_module(concat(i), std::make_shared<SiglipEncoderLayer>(config)));
    }
  }

  at::Tensor forward(at::Tensor x, const at::Tensor& mask, bool checkpointing) {
    for (const auto& layer : layers_) {
      const auto block = [&layer, mask](const at::Tensor& in) { return layer->forward(in, mask); };
      x = checkpointing ? checkpoint_activations(*layer, block, x) : block(x);
    }
    return x;
  }

 private:
  std::vector<std::shared_ptr<SiglipEncoderLayer>> layers_;
};

SiglipVisionModel::SiglipVisionModel(const SiglipConfig& config) {
  embeddings_ = register_module("embeddings", std::make_shared<SiglipEmbeddings>(config));
  encoder_ = register_module("encoder", std::make_shared<SiglipEncoder>(config));
  post_layernorm_ = register_module(
      "post_layernorm", std::make_shared<LayerNorm>(config.hidden_size, config.layer_norm_eps));
  patch_size_ = config.patch_size;
}

at::Tensor SiglipVisionModel::forward(const at::Tensor& pixel_values, const at::Tensor& tile_mask,
                                      bool checkpointing) {
  const std::int64_t rows = pixel_values.size(2) / patch_size_;
  const std::int64_t cols = pixel_values.size(3) / patch_size_;
  const at::Tensor patch_mask =
      tile_mask.defined()
          ? make_patch_mask(tile_mask, patch_size_)
          : at::ones({pixel_values.size(0), rows, cols}, pixel_values.options().dtype(at::kBool));
  at::Tensor key_mask;  // left undefined when nothing is masked
  if (tile_mask.defined() && !patch_mask.all().item<bool>()) {
    key_mask = patch_mask.flatten(1).view({patch_mask.size(0), 1, 1, rows * cols});
  }
  const at::Tensor embedded = embeddings_->forward(pixel_values, patch_mask);
  return post_layernorm_->forward(encoder_->forward(embedded, key_mask, checkpointing));
}

at::Tensor make_patch_mask(const at::Tensor& tile_mask, std::int64_t patch_size) {
  return tile_mask.unfold(1, patch_size, patch_size)
      .unfold(2, patch_size, patch_size)
      .flatten(3)
      .any(-1);
}

at::Tensor make_position_ids(const at::Tensor& patch_mask, std::int64_t grid_side) {
  const std::int64_t rows = patch_mask.size(1), cols = patch_mask.size(2);
  const auto float_options = patch_mask.options().dtype(at::kFloat);
  const double cell = 1.0 / static_cast<double>(grid_side);
  const at::Tensor boundaries = at::arange(cell, 1.0, cell, float_options);
  // Bucket of i / n for each of n real patches in a direction; n differs per picture.
  const auto buckets = [&](const at::Tensor& real, std::int64_t count) {
    const at::Tensor step = real.to(at::kFloat).clamp_min(1).reciprocal().unsqueeze(1);  // [N, 1]
    const at::Tensor fraction = at::arange(count, float_options) * step;                 // [N, n]
    return at::bucketize(fraction.clamp_max(1.0 - 1e-6), boundaries, false, /*right=*/true);
  };
  const at::Tensor row_ids = buckets(patch_mask.select(2, 0).sum(1), rows);
  const at::Tensor col_ids = buckets(patch_mask.select(1, 0).sum(1), cols);
  const at::Tensor ids = row_ids.unsqueeze(2) * grid_side + col_ids.unsqueeze(1);  // [N, h, w]
  return (ids * patch_mask).flatten(1);
}

}  // namespace vlm

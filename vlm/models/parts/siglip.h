// SigLIP-style vision encoder with variable-resolution position ids and a patch mask.
//
//   tiles [N, 3, S, S], tile_mask [N, S, S] ─► patches [N, P, C] (after post_layernorm)
//
// Reference: SmolVLMVisionTransformer / Idefics3VisionTransformer, transformers 5.23. No class
// token, no pooling head.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vlm/core/config/fields.h"
#include "vlm/nn/layers.h"

namespace vlm {

struct SiglipConfig {
  std::int64_t hidden_size = 1152;
  std::int64_t intermediate_size = 3072;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 16;
  std::int64_t num_channels = 3;
  std::int64_t image_size = 224;
  std::int64_t patch_size = 32;
  std::string hidden_act = "gelu_pytorch_tanh";
  double layer_norm_eps = 1e-6;
  double initializer_range = 0.02;

  Fields fields();
  std::int64_t grid_side() const { return image_size / patch_size; }
};

class SiglipEmbeddings;
class SiglipEncoder;

class SiglipVisionModel : public torch::nn::Module {
 public:
  explicit SiglipVisionModel(const SiglipConfig& config);

  // `tile_mask` undefined: every pixel is real.
  at::Tensor forward(const at::Tensor& pixel_values, const at::Tensor& tile_mask,
                     bool checkpointing);

 private:
  std::shared_ptr<SiglipEmbeddings> embeddings_;
  std::shared_ptr<SiglipEncoder> encoder_;
  std::shared_ptr<LayerNorm> post_layernorm_;
  std::int64_t patch_size_;
};

// [N, S, S] bool → [N, S/p, S/p] bool: true where any pixel of the patch is real.
at::Tensor make_patch_mask(const at::Tensor& tile_mask, std::int64_t patch_size);

// Patch mask [N, h, w] → ids [N, h·w] into a position table of grid_side² rows; masked patches get
// 0.
at::Tensor make_position_ids(const at::Tensor& patch_mask, std::int64_t grid_side);

}  // namespace vlm

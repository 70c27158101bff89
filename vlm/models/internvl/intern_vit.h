// InternViT: the vision encoder of InternVL.
//
//   tiles [N, 3, S, S] ─► patches [N, P, C], row by row, without the class token
//
// A class token in front of the patches, learned positions, blocks whose branches are scaled
// channel by channel, and no norm at the end. Modules have the names of the layout of transformers
// or of the original one. Reference: InternVLVisionModel with mean pooling, transformers 5.23.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "vlm/models/internvl/internvl_config.h"

namespace vlm {

class InternVitEmbeddings;
class InternVitLayer;

class InternVit : public torch::nn::Module {
 public:
  explicit InternVit(const InternVitConfig& config);

  // Tiles of another side than image_size get interpolated positions.
  at::Tensor forward(const at::Tensor& tiles, bool checkpointing);

 private:
  std::shared_ptr<InternVitEmbeddings> embeddings_;
  std::vector<std::shared_ptr<InternVitLayer>> layers_;
};

}  // namespace vlm

// The vision encoder of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, as rows of
// patches.
//
//   patch vectors [P, V] and the grid of each picture ─► features [P / 4, C or 4 C]
//
// V is channel × frame × row × column of a patch of two frames; the processor writes patches block
// by block, so that the four of a block of 2 × 2 follow each other: they become one token. Rows and
// columns turn queries and keys; attention stays within a frame, in Qwen2.5-VL in most layers
// within a window. Qwen3-VL adds learned positions, and hands on what some inner layers see: these
// features stand behind the last ones, [P / 4, 4 C]. Reference: Qwen2VisionTransformer,
// Qwen2_5_VisionTransformer and Qwen3VLVisionModel, transformers 5.23.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/models/interface/pixels.h"
#include "vlm/nn/layers.h"

namespace vlm {

enum class QwenGeneration { k2, k25, k3 };

struct QwenVisionConfig {
  QwenGeneration generation = QwenGeneration::k2;
  std::int64_t depth = 32;
  std::int64_t width = 1280;         // of a patch: embed_dim, in later ones hidden_size
  std::int64_t intermediate = 5120;  // of the MLP
  std::int64_t num_heads = 16;
  std::int64_t in_channels = 3;
  std::int64_t patch_size = 14;
  std::int64_t spatial_merge_size = 2;
  std::int64_t temporal_patch_size = 2;
  std::int64_t out_width = 3584;  // of a token: the decoder's
  double initializer_range = 0.02;
  // Qwen2.5-VL
  std::int64_t window_size = 112;  // pixels
  std::vector<std::int64_t> full_layers = {7, 15, 23, 31};
  double tokens_per_second = 4;
  // Qwen3-VL
  std::int64_t num_position_embeddings = 2304;
  std::vector<std::int64_t> deepstack_layers = {8, 16, 24};

  // Of vision_config (null: absent). Throws Error naming `where` and the key for values that can't
  // work.
  static QwenVisionConfig parse(const Json* json, QwenGeneration generation,
                                const std::string& where);

  std::int64_t patch_numbers() const {  // V
    return in_channels * temporal_patch_size * patch_size * patch_size;
  }
  std::int64_t merged_patches() const { return spatial_merge_size * spatial_merge_size; }
  std::int64_t head_size() const { return width / num_heads; }
};

class QwenVisionBlock;
class QwenPatchEmbed;
class QwenMerger;

class QwenVisionModel : public torch::nn::Module {
 public:
  explicit QwenVisionModel(const QwenVisionConfig& config);

  // patches [P, V] in the dtype to compute in, of all grids one behind the other.
  at::Tensor forward(const at::Tensor& patches, const std::vector<PatchGrid>& grids,
                     bool checkpointing);

 private:
  at::Tensor embed_positions(const std::vector<PatchGrid>& grids, at::ScalarType dtype) const;

  QwenVisionConfig config_;
  std::shared_ptr<QwenPatchEmbed> patch_embed_;
  std::shared_ptr<Embedding> pos_embed_;  // null before Qwen3-VL
  std::vector<std::shared_ptr<QwenVisionBlock>> blocks_;
  std::shared_ptr<QwenMerger> merger_;
  std::vector<std::shared_ptr<QwenMerger>> deepstack_;
};

// How the tokens (blocks of patches) of the grids are ordered by windows: the index of each token's
// place in the order of the rows, and how many patches each window has.
struct QwenWindows {
  std::vector<std::int64_t> order;
  std::vector<std::int64_t> patches;
};
QwenWindows find_windows(const QwenVisionConfig& config, const std::vector<PatchGrid>& grids);

}  // namespace vlm

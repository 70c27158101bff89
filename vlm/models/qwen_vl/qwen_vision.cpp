#include "vlm/models/qwen_vl/qwen_vision.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/models/parts/vision_norm.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/mlp.h"
#include "vlm/nn/rotary.h"
#include "vlm/nn/upload.h"

namespace vlm {

namespace {

constexpr double kVisionTheta = 10000;

// What the blocks of one pass share.
struct VisionPass {
  RotaryTable rotary;  // [1, 1, P, D] float32
  // Patches of each segment of attention; no windows: null.
  std::shared_ptr<const SegmentLengths> frames, windows;
};

VisionNorm make_norm(torch::nn::Module& owner, const char* name, const QwenVisionConfig& config,
                     std::int64_t width) {
  return {owner, name, width, 1e-6, config.generation == QwenGeneration::k25};
}

std::shared_ptr<Linear> make_linear(torch::nn::Module& owner, const char* name, std::int64_t in,
                                    std::int64_t out) {
  return owner.register_module(name, std::make_shared<Linear>(in, out, /*has_bias=*/true));
}

std::int64_t sum_patches(const std::vector<PatchGrid>& grids) {
  std::int64_t sum = 0;
  for (const PatchGrid& grid : grids) sum += grid.patches();
  return sum;
}

// Rows and columns of a grid's patches, each [P], in the order that the processor writes them.
std::pair<at::Tensor, at::Tensor> find_places(const PatchGrid& grid, std::int64_t merge) {
  const auto in_blocks = [&](const at::Tensor& t) {  // [h, w] → [P]
    return t.expand({grid.height, grid.width})
        .reshape({grid.height / merge, merge, grid.width / merge, merge})
        .permute({0, 2, 1, 3})
        .flatten()
        .repeat({grid.frames});
  };
  return {in_blocks(at::arange(grid.height).unsqueeze(1)),
          in_blocks(at::arange(grid.width).unsqueeze(0))};
}

// Angles of all patches: [P, D / 2], the first half by row, the second by column.
at::Tensor find_angles(const QwenVisionConfig& config, const std::vector<PatchGrid>& grids) {
  const std::int64_t dims = config.head_size() / 2;
  const at::Tensor frequencies =
      1.0 / at::pow(kVisionTheta, at::arange(0, dims, 2, at::kFloat) / static_cast<double>(dims));
  std::vector<at::Tensor> parts;
  for (const PatchGrid& grid : grids) {
    const auto [rows, cols] = find_places(grid, config.spatial_merge_size);
    parts.push_back(at::cat(
        {at::outer(rows.to(at::kFloat), frequencies), at::outer(cols.to(at::kFloat), frequencies)},
        1));
  }
  return at::cat(parts);
}

RotaryTable make_table(const at::Tensor& angles, at::Device device) {
  const at::Tensor both = upload(at::cat({angles, angles}, 1).unsqueeze(0).unsqueeze(0), device);
  return {.cos = both.cos(), .sin = both.sin()};
}

// The same rows, `merged` at a time, in another order.
at::Tensor reorder(const at::Tensor& rows, const at::Tensor& order, std::int64_t merged) {
  return rows.unflatten(0, {-1, merged}).index_select(0, order).flatten(0, 1);
}

}  // namespace

QwenWindows find_windows(const QwenVisionConfig& config, const std::vector<PatchGrid>& grids) {
  const std::int64_t merge = config.spatial_merge_size;
  const std::int64_t side = config.window_size / merge / config.patch_size;  // tokens
  QwenWindows windows;
  std::int64_t begin = 0;
  const auto add_window = [&](std::int64_t top, std::int64_t left, std::int64_t height,
                              std::int64_t width) {
    std::int64_t count = 0;
    for (std::int64_t r = top; r < std::min(top + side, height); ++r) {
      for (std::int64_t c = left; c < std::min(left + side, width); ++c, ++count) {
        windows.order.push_back(begin + r * width + c);
      }
    }
    windows.patches.push_back(count * merge * merge);
  };
  for (const PatchGrid& grid : grids) {
    const std::int64_t height = grid.height / merge, width = grid.width / merge;
    for (std::int64_t frame = 0; frame < grid.frames; ++frame) {
      for (std::int64_t top = 0; top < height; top += side) {
        for (std::int64_t left = 0; left < width; left += side) {
          add_window(top, left, height, width);
        }
      }
      begin += height * width;
    }
  }
  return windows;
}

// The published convolution over patches that don't overlap, as the matrix that it is. Its weight
// keeps its shape, [width, channels, frames, rows, columns].
class QwenPatchEmbed : public torch::nn::Module {
 public:
  explicit QwenPatchEmbed(const QwenVisionConfig& config) {
    auto proj = register_module("proj", std::make_shared<torch::nn::Module>());
    weight_ = proj->register_parameter(
        "weight", at::empty({config.width, config.in_channels, config.temporal_patch_size,
                             config.patch_size, config.patch_size}));
    if (config.generation == QwenGeneration::k3) {
      bias_ = proj->register_parameter("bias", at::empty({config.width}));
    }
    proj_ = proj;
  }

  at::Tensor forward(const at::Tensor& patches) const {  // [P, V] → [P, width]
    const auto parameters = proj_->named_parameters(/*recurse=*/false);
    const auto dtype = patches.scalar_type();
    const at::Tensor y = at::matmul(patches, parameters["weight"].to(dtype).flatten(1).t());
    return bias_.defined() ? y + parameters["bias"].to(dtype) : y;
  }

 private:
  std::shared_ptr<torch::nn::Module> proj_;
  at::Tensor weight_, bias_;
};

class QwenVisionAttention : public torch::nn::Module {
 public:
  explicit QwenVisionAttention(const QwenVisionConfig& config) : heads_(config.num_heads) {
    qkv_ = make_linear(*this, "qkv", config.width, 3 * config.width);
    proj_ = make_linear(*this, "proj", config.width, config.width);
  }

  // residual + the attention of x [P, width]; queries see the keys of their own segment.
  at::Tensor forward(const at::Tensor& residual, const at::Tensor& x, const RotaryTable& rotary,
                     const SegmentLengths& segments) {
    const at::Tensor all = qkv_->forward(x).view({x.size(0), 3, heads_, -1});  // [P, 3, H, D]
    const auto part = [&](std::int64_t i) {                                    // [1, H, P, D]
      return all.select(1, i).transpose(0, 1).unsqueeze(0);
    };
    const auto turned = [&](const at::Tensor& t) {
      return apply_rotary(t.to(at::kFloat), rotary).to(x.scalar_type());
    };
    const at::Tensor attended = segment_attention({turned(part(0)), turned(part(1)), part(2)},
                                                  segments, qkv_->product_dtype);
    return add_layer(residual, attended.squeeze(0).transpose(0, 1).flatten(1), *proj_);
  }

 private:
  std::int64_t heads_;
  std::shared_ptr<Linear> qkv_, proj_;
};

// Three kinds: quick GELU, SwiGLU with biases, GELU by tanh.
class QwenVisionMlp : public torch::nn::Module {
 public:
  explicit QwenVisionMlp(const QwenVisionConfig& config) : generation_(config.generation) {
    const std::int64_t width = config.width, inner = config.intermediate;
    if (generation_ == QwenGeneration::k25) {
      gate_ = make_linear(*this, "gate_proj", width, inner);
      in_ = make_linear(*this, "up_proj", width, inner);
      out_ = make_linear(*this, "down_proj", inner, width);
      return;
    }
    const bool is_third = generation_ == QwenGeneration::k3;
    in_ = make_linear(*this, is_third ? "linear_fc1" : "fc1", width, inner);
    out_ = make_linear(*this, is_third ? "linear_fc2" : "fc2", inner, width);
  }

  at::Tensor forward(const at::Tensor& residual, const at::Tensor& x) {
    if (generation_ == QwenGeneration::k25) {
      return add_residual(gated_mlp(x, *gate_, *in_, *out_), residual);
    }
    return add_gelu_mlp(residual, x, *in_, *out_,
                        generation_ == QwenGeneration::k3 ? Gelu::kTanh : Gelu::kQuick);
  }

 private:
  QwenGeneration generation_;
  std::shared_ptr<Linear> gate_, in_, out_;
};

class QwenVisionBlock : public torch::nn::Module {
 public:
  explicit QwenVisionBlock(const QwenVisionConfig& config)
      : norm1_(make_norm(*this, "norm1", config, config.width)),
        norm2_(make_norm(*this, "norm2", config, config.width)) {
    attn_ = register_module("attn", std::make_shared<QwenVisionAttention>(config));
    mlp_ = register_module("mlp", std::make_shared<QwenVisionMlp>(config));
  }

  at::Tensor forward(const at::Tensor& x, const RotaryTable& rotary,
                     const SegmentLengths& segments) {
    const at::Tensor attended = attn_->forward(x, norm1_.forward(x), rotary, segments);
    return mlp_->forward(attended, norm2_.forward(attended));
  }

 private:
  VisionNorm norm1_, norm2_;
  std::shared_ptr<QwenVisionAttention> attn_;
  std::shared_ptr<QwenVisionMlp> mlp_;
};

// Four patches → a token. The deepstack's norm works on the four side by side.
class QwenMerger : public torch::nn::Module {
 public:
  QwenMerger(const QwenVisionConfig& config, bool is_norm_behind)
      : merged_(config.width * config.merged_patches()), is_norm_behind_(is_norm_behind) {
    const bool is_third = config.generation == QwenGeneration::k3;
    norm_ = make_norm(*this, is_third ? "norm" : "ln_q", config,
                      is_norm_behind ? merged_ : config.width);
    if (is_third) {
      fc1_ = make_linear(*this, "linear_fc1", merged_, merged_);
      fc2_ = make_linear(*this, "linear_fc2", merged_, config.out_width);
      return;
    }
    auto mlp = register_module("mlp", std::make_shared<torch::nn::Module>());
    fc1_ = make_linear(*mlp, "0", merged_, merged_);
    fc2_ = make_linear(*mlp, "2", merged_, config.out_width);
  }

  at::Tensor forward(const at::Tensor& patches) const {  // [P, width] → [P / 4, C]
    const at::Tensor x = is_norm_behind_ ? norm_.forward(patches.reshape({-1, merged_}))
                                         : norm_.forward(patches).reshape({-1, merged_});
    return gelu_mlp(x, *fc1_, *fc2_, Gelu::kErf);
  }

 private:
  std::int64_t merged_;
  bool is_norm_behind_;
  VisionNorm norm_;
  std::shared_ptr<Linear> fc1_, fc2_;
};

QwenVisionModel::QwenVisionModel(const QwenVisionConfig& config) : config_(config) {
  patch_embed_ = register_module("patch_embed", std::make_shared<QwenPatchEmbed>(config));
  if (config.generation == QwenGeneration::k3) {
    pos_embed_ = register_module(
        "pos_embed", std::make_shared<Embedding>(config.num_position_embeddings, config.width));
  }
  auto blocks = register_module("blocks", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.depth; ++i) {
    blocks_.push_back(
        blocks->register_module(concat(i), std::make_shared<QwenVisionBlock>(config)));
  }
  merger_ = register_module("merger", std::make_shared<QwenMerger>(config, false));
  if (config.generation != QwenGeneration::k3) return;
  auto list = register_module("deepstack_merger_list", std::make_shared<torch::nn::Module>());
  for (std::size_t i = 0; i < config.deepstack_layers.size(); ++i) {
    deepstack_.push_back(
        list->register_module(concat(i), std::make_shared<QwenMerger>(config, true)));
  }
}

// The learned table, a square, is stretched over each grid: bilinear between the four rows around.
at::Tensor QwenVisionModel::embed_positions(const std::vector<PatchGrid>& grids,
                                            at::ScalarType dtype) const {
  std::int64_t side = 1;
  while (side * side < config_.num_position_embeddings) ++side;
  const at::Tensor& table = pos_embed_->weight;
  std::vector<at::Tensor> parts;
  for (const PatchGrid& grid : grids) {
    const auto coordinates = [&](std::int64_t count) {
      return at::linspace(0, static_cast<double>(side - 1), count, at::kFloat);
    };
    const at::Tensor rows = coordinates(grid.height).unsqueeze(1).expand({grid.height, grid.width});
    const at::Tensor cols = coordinates(grid.width).unsqueeze(0).expand({grid.height, grid.width});
    const at::Tensor top = rows.to(at::kLong), left = cols.to(at::kLong);
    const at::Tensor bottom = (top + 1).clamp_max(side - 1), right = (left + 1).clamp_max(side - 1);
    const at::Tensor down = rows - top, across = cols - left;
    const auto corner = [&](const at::Tensor& r, const at::Tensor& c, const at::Tensor& weight) {
      const at::Tensor index = upload((r * side + c).flatten(), table.device());
      return table.index_select(0, index).to(dtype) *
             upload(weight.flatten().unsqueeze(1), table.device()).to(dtype);
    };
    const at::Tensor stretched =
        corner(top, left, (1 - down) * (1 - across)) + corner(top, right, (1 - down) * across) +
        corner(bottom, left, down * (1 - across)) + corner(bottom, right, down * across);
    const auto [row_of, col_of] = find_places(grid, config_.spatial_merge_size);
    const at::Tensor places = row_of * grid.width + col_of;
    parts.push_back(stretched.index_select(0, upload(places, table.device())));
  }
  return at::cat(parts);
}

at::Tensor QwenVisionModel::forward(const at::Tensor& patches, const std::vector<PatchGrid>& grids,
                                    bool checkpointing) {
  TORCH_CHECK(sum_patches(grids) == patches.size(0), "grids of ", sum_patches(grids),
              " patches for ", patches.size(0), " rows");
  at::Tensor x = patch_embed_->forward(patches);
  if (pos_embed_) x = x + embed_positions(grids, x.scalar_type());
  at::Tensor angles = find_angles(config_, grids);
  VisionPass pass;
  std::vector<std::int64_t> frames;
  for (const PatchGrid& grid : grids) {
    frames.insert(frames.end(), static_cast<std::size_t>(grid.frames), grid.height * grid.width);
  }
  pass.frames = std::make_shared<const SegmentLengths>(std::move(frames));
  at::Tensor order;
  if (config_.generation == QwenGeneration::k25) {
    const QwenWindows windows = find_windows(config_, grids);
    pass.windows = std::make_shared<const SegmentLengths>(windows.patches);
    order = at::tensor(windows.order, at::kLong);
    angles = reorder(angles, order, config_.merged_patches());
    x = reorder(x, upload(order, x.device()), config_.merged_patches());
  }
  pass.rotary = make_table(angles, x.device());
  std::vector<at::Tensor> features(1);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const auto number = static_cast<std::int64_t>(i);
    const bool sees_frame = !pass.windows || std::ranges::find(config_.full_layers, number) !=
                                                 config_.full_layers.end();
    const auto block = [&layer = blocks_[i], pass, sees_frame](const at::Tensor& in) {
      return layer->forward(in, pass.rotary, sees_frame ? *pass.frames : *pass.windows);
    };
    x = checkpointing ? checkpoint_activations(*blocks_[i], block, x) : block(x);
    const auto found = std::ranges::find(config_.deepstack_layers, number);
    if (!deepstack_.empty() && found != config_.deepstack_layers.end()) {
      const auto k = static_cast<std::size_t>(found - config_.deepstack_layers.begin());
      features.push_back(deepstack_[k]->forward(x));
    }
  }
  features[0] = merger_->forward(x);
  if (order.defined()) {
    features[0] = features[0].index_select(0, upload(order.argsort(), x.device()));
  }
  return features.size() == 1 ? features[0] : at::cat(features, 1);
}

}  // namespace vlm

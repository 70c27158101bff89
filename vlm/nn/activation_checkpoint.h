// Gradient checkpointing: a block's activations are dropped after forward and computed again in
// backward.
//
// The block's output is the same; only its input is kept for backward, not what is computed inside.
// Dropout inside the block draws the same numbers the second time (the generator's state is kept).
// Reference: torch.utils.checkpoint.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>

namespace vlm {

// block(x) with its activations checkpointed; `owner` holds every parameter that the block uses.
// Gradients flow to x and to those parameters, also when x itself needs no gradient. Where nothing
// needs one (a frozen encoder) the block is called directly.
at::Tensor checkpoint_activations(const torch::nn::Module& owner,
                                  const std::function<at::Tensor(const at::Tensor&)>& block,
                                  const at::Tensor& x);

// True when gradients are recorded and x or a parameter of `owner` needs one.
bool needs_gradient(const torch::nn::Module& owner, const at::Tensor& x);

}  // namespace vlm

// Gradient checkpointing: a block's activations are dropped after forward and computed again in
// backward.
//
// The block's output is the same; memory falls from everything inside the block to its input.
// Dropout inside the block draws the same numbers the second time (the generator's state is kept).
// Reference: torch.utils.checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace vlm {

// block(x) with its activations checkpointed. Gradients flow to x and to every parameter that the
// block uses, also when x itself needs no gradient.
at::Tensor checkpoint_activations(const std::function<at::Tensor(const at::Tensor&)>& block,
                                  const at::Tensor& x);

}  // namespace vlm

// Products with frozen weights that are stored in fewer bits than they are multiplied in.
//
//   x [..., in] float, weight [out, in] in NF4 or bfloat16 ─► x Wᵀ + b [..., out], in x's dtype
//
// `product_dtype` is the dtype of the factors, forward and backward: x's dtype, or bfloat16 where a
// processor is quicker with it.
//
// The weight is converted when it is used, in forward and again in backward, and the copy is freed
// at once. So a training step holds the stored weights and a converted copy of one layer (NF4) or
// of a few rows (bfloat16). Gradients flow to x and to the bias, never to the weight.
//
// On a GPU each operator costs a launch, and expanding a weight takes seven. There the weights of a
// block (attention and MLP) lie in one place and are expanded together: join_nf4.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace vlm {

class Nf4Block;
struct Nf4Weight;

// The block of a model that was expanded last. It stays so until another one is asked for, as a
// block's layers are used one after the other; for one thread at a time.
struct WideBlock {
  const Nf4Block* owner = nullptr;
  at::Tensor values;  // [values]

  void release() { *this = {}; }
};

// The weights as parts of one block. `last` is shared by the blocks of a model.
std::vector<Nf4Weight> join_nf4(const std::vector<const Nf4Weight*>& weights,
                                const std::shared_ptr<WideBlock>& last);

// dequantize_nf4 for products: of a part the whole block is expanded, if it isn't yet. The result
// may be a part of it, and is not to be written to.
at::Tensor widen_nf4(const Nf4Weight& stored, at::ScalarType dtype);

// On any device.
at::Tensor nf4_linear(const at::Tensor& x, const std::shared_ptr<const Nf4Weight>& weight,
                      const at::Tensor& bias, at::ScalarType product_dtype);

// x float32 beside a bfloat16 weight. On a CPU by bfloat16_linear.h, elsewhere in float32 with the
// weight widened for the product.
at::Tensor frozen_bfloat16_linear(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias, at::ScalarType product_dtype);

}  // namespace vlm

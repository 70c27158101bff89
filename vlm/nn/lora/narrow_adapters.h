// Copies of a model's adapters in the dtype that a GPU multiplies them in.
//
//   A and B of every layer, float32 ─► refresh() ─► LoraBranch::narrow, in bfloat16
//
// What is trained is float32; a product takes factors of one dtype. One operator makes all copies,
// where each layer would need two in every pass. Only layers that are trained through LoRA alone
// have copies: DoRA multiplies in float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "vlm/nn/layers.h"

namespace vlm {

class NarrowAdapters {
 public:
  // Makes no copies on a CPU, nor where `dtype` is that of the adapters.
  NarrowAdapters(const torch::nn::Module& model, at::ScalarType dtype);
  ~NarrowAdapters();
  NarrowAdapters(const NarrowAdapters&) = delete;
  NarrowAdapters& operator=(const NarrowAdapters&) = delete;

  // Copies again; to be called after each change of the adapters, before they are used.
  void refresh();

  std::int64_t nbytes() const;

 private:
  std::vector<std::shared_ptr<Linear>> layers_;
};

}  // namespace vlm

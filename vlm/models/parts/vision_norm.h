// The norm of an encoder that has LayerNorms in some sizes and RmsNorms in others, under one name.
#pragma once

#include <memory>

#include "vlm/nn/layers.h"

namespace vlm {

class VisionNorm {
 public:
  VisionNorm() = default;
  // Registers it in `owner`.
  VisionNorm(torch::nn::Module& owner, const char* name, std::int64_t width, double eps,
             bool is_rms) {
    if (is_rms) {
      rms_ = owner.register_module(name, std::make_shared<RmsNorm>(width, eps));
    } else {
      layer_ = owner.register_module(name, std::make_shared<LayerNorm>(width, eps));
    }
  }

  at::Tensor forward(const at::Tensor& x) const {
    return rms_ ? rms_->forward(x) : layer_->forward(x);
  }

 private:
  std::shared_ptr<RmsNorm> rms_;  // or:
  std::shared_ptr<LayerNorm> layer_;
};

}  // namespace vlm

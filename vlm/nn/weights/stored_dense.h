// A weight stored as numbers: float32, bfloat16 or float16.
//
// It is the layer's parameter itself, so it may be trained, and its dtype follows the parameter's.
// A bfloat16 weight beside float32 inputs gets no gradient (frozen_linear.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

class StoredDense : public StoredWeight {
 public:
  explicit StoredDense(at::Tensor weight) : weight_(std::move(weight)) {}

  std::string format() const override;
  at::Device device() const override { return weight_.device(); }
  std::int64_t nbytes() const override { return static_cast<std::int64_t>(weight_.nbytes()); }
  at::Tensor dense() const override { return weight_; }
  at::Tensor multiply(const at::Tensor& x, const at::Tensor& added,
                      at::ScalarType product_dtype) const override;
  std::vector<at::Tensor> multiply_each(const at::Tensor& x,
                                        const std::vector<StoredMap>& maps) const override;
  at::Tensor gelu_mlp(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                      Gelu kind) const override;
  at::Tensor gated_mlp(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                       const StoredMap& down) const override;
  std::shared_ptr<const StoredWeight> rows(std::int64_t first, std::int64_t count) const override;

 private:
  at::Tensor weight_;  // [out, in]
};

}  // namespace vlm

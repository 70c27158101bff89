// A dense weight that adds up what it is multiplied with, to quantize it by what it is used for.
//
//   x [rows, in], weights of rows ─► sums += Σ w x xᵀ [in, in]
#pragma once

#include <memory>
#include <string>

#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

// Of the inputs of one layer, or of several that have the same ones.
struct InputSums {
  at::Tensor sums;         // [in, in] float32
  at::Tensor row_weights;  // of the rows of the next inputs; undefined: all are 1
};

class StoredObserved : public StoredWeight {
 public:
  // `sums` null: inputs are passed on and not added.
  StoredObserved(std::shared_ptr<const StoredWeight> weight, std::shared_ptr<InputSums> sums)
      : weight_(std::move(weight)), sums_(std::move(sums)) {}

  std::string format() const override { return weight_->format(); }
  at::Device device() const override { return weight_->device(); }
  std::int64_t nbytes() const override { return weight_->nbytes(); }
  at::Tensor dense() const override { return weight_->dense(); }
  at::Tensor multiply(const at::Tensor& x, const at::Tensor& added,
                      at::ScalarType product_dtype) const override;

 private:
  std::shared_ptr<const StoredWeight> weight_;
  std::shared_ptr<InputSums> sums_;
};

}  // namespace vlm

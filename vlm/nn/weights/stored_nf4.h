// A weight in NF4 (quantize.h), for training adapters on a frozen base. Gradients pass to x.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vlm/nn/quantize.h"
#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

class StoredNf4 : public StoredWeight {
 public:
  explicit StoredNf4(Nf4Weight weight)
      : weight_(std::make_shared<const Nf4Weight>(std::move(weight))) {}

  const Nf4Weight& weight() const { return *weight_; }

  std::string format() const override { return "NF4"; }
  at::Device device() const override { return weight_->codes.device(); }
  std::int64_t nbytes() const override { return weight_->nbytes(); }
  std::vector<std::pair<const char*, at::Tensor>> buffers() const override;
  at::Tensor dense() const override { return dequantize_nf4(*weight_, at::kFloat); }
  at::Tensor widen(at::ScalarType dtype) const override;
  at::Tensor multiply(const at::Tensor& x, const at::Tensor& added,
                      at::ScalarType product_dtype) const override;

 private:
  std::shared_ptr<const Nf4Weight> weight_;
};

}  // namespace vlm

// A weight in 8 bits with a scale a row (cpu/int8/int8_weight.h), for running models on a CPU.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/int8/int8_weight.h"
#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

class StoredInt8 : public StoredWeight {
 public:
  explicit StoredInt8(Int8Weight weight) : weight_(std::move(weight)) {}

  const Int8Weight& weight() const { return weight_; }

  std::string format() const override { return "int8"; }
  at::Device device() const override { return at::kCPU; }
  std::int64_t nbytes() const override;
  std::vector<std::pair<const char*, at::Tensor>> buffers() const override;
  at::Tensor dense() const override { return dequantize_int8(weight_); }
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
  Int8Weight weight_;
};

}  // namespace vlm

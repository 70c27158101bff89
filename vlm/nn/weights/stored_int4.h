// A weight in 4 bits with a scale for each 32 inputs (cpu/int4/int4_weight.h), for running models
// on a CPU.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vlm/nn/cpu/int4/int4_weight.h"
#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

class StoredInt4 : public StoredWeight {
 public:
  explicit StoredInt4(Int4Weight weight) : weight_(std::move(weight)) {}

  const Int4Weight& weight() const { return weight_; }

  std::string format() const override { return "int4"; }
  at::Device device() const override { return at::kCPU; }
  std::int64_t nbytes() const override;
  std::vector<std::pair<const char*, at::Tensor>> buffers() const override;
  at::Tensor dense() const override { return dequantize_int4(weight_); }
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
  Int4Weight weight_;
};

}  // namespace vlm

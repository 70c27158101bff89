// Comparison of whole tensors against golden or exact ones. For tests that use LibTorch.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "tests/support/catch.h"
#include "vlm/io/safetensors.h"

namespace vlm {

// max |actual − expected| ≤ tolerance · max |expected|, over the whole tensor.
inline void check_close(const at::Tensor& actual, const at::Tensor& expected,
                        double tolerance = 1e-5) {
  REQUIRE(actual.sizes() == expected.sizes());
  const at::Tensor a = actual.detach().cpu().to(at::kDouble);
  const at::Tensor e = expected.to(at::kDouble);
  const double scale = e.abs().max().item<double>();
  const double difference = (a - e).abs().max().item<double>();
  INFO("largest difference " << difference << ", largest value " << scale);
  CHECK(difference <= tolerance * scale);
}

// Largest difference of a linear layer's result from float64, relative to the largest value.
inline double linear_error(const at::Tensor& found, const at::Tensor& x, const at::Tensor& weight,
                           const at::Tensor& bias) {
  const at::Tensor wanted = at::linear(x.to(at::kDouble), weight.to(at::kDouble),
                                       bias.defined() ? bias.to(at::kDouble) : at::Tensor());
  REQUIRE(found.sizes() == wanted.sizes());
  REQUIRE(found.scalar_type() == at::kFloat);
  return ((found - wanted).abs().max() / wanted.abs().max()).item<double>();
}

// Golden tensors of one file, by name.
class Golden {
 public:
  explicit Golden(const std::string& file) : file_(fixture(file)) {}
  at::Tensor operator[](const std::string& name) const { return file_.tensor(name); }
  bool has(const std::string& name) const { return file_.entries().count(name) > 0; }
  const SafetensorsFile& file() const { return file_; }

 private:
  SafetensorsFile file_;
};

}  // namespace vlm

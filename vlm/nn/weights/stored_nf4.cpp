#include "vlm/nn/weights/stored_nf4.h"

#include "vlm/nn/frozen_linear.h"

namespace vlm {

std::vector<std::pair<const char*, at::Tensor>> StoredNf4::buffers() const {
  return {{"codes", weight_->codes},
          {"absmax", weight_->absmax.codes},
          {"absmax_scales", weight_->absmax.scales},
          {"absmax_mean", weight_->absmax_mean}};
}

at::Tensor StoredNf4::widen(at::ScalarType dtype) const {
  return widen_nf4(*weight_, dtype);
}

at::Tensor StoredNf4::multiply(const at::Tensor& x, const at::Tensor& added,
                               at::ScalarType product_dtype) const {
  return nf4_linear(x, weight_, added,
                    x.scalar_type() == at::kFloat ? product_dtype : x.scalar_type());
}

}  // namespace vlm

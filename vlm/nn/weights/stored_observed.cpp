#include "vlm/nn/weights/stored_observed.h"

#include "vlm/nn/cpu/matrix_rows.h"

namespace vlm {

at::Tensor StoredObserved::multiply(const at::Tensor& x, const at::Tensor& added,
                                    at::ScalarType product_dtype) const {
  if (sums_) {
    const at::Tensor rows = as_rows(x).to(at::kFloat);
    const bool is_weighted =
        sums_->row_weights.defined() && sums_->row_weights.numel() == rows.size(0);
    const at::Tensor weighted = is_weighted ? rows * sums_->row_weights.unsqueeze(1) : rows;
    sums_->sums.addmm_(weighted.t(), rows);
  }
  return weight_->multiply(x, added, product_dtype);
}

}  // namespace vlm

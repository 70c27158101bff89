#include "vlm/models/interface/model.h"

namespace vlm {

std::int64_t VisionLanguageModel::filler_id() const {
  std::int64_t id = 0;
  for (const std::int64_t medium : media_token_ids()) id += medium == id ? 1 : 0;
  return id;
}

at::ScalarType activation_dtype(const VisionLanguageModel& model) {
  return model.device().is_cpu() || model.product_dtype == at::kFloat ? model.dtype()
                                                                      : model.product_dtype;
}

}  // namespace vlm

#include "vlm/models/interface/model.h"

#include <torch/nn/module.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

bool multiplies_narrowly(const VisionLanguageModel& model) {
  const auto modules = model.module().modules();
  return std::ranges::any_of(modules, [](const auto& module) {
    const auto* linear = dynamic_cast<const Linear*>(module.get());
    return linear && (linear->product_dtype == at::kBFloat16 || linear->is_quantized());
  });
}

}  // namespace

std::int64_t VisionLanguageModel::filler_id() const {
  std::int64_t id = 0;
  for (const std::int64_t medium : media_token_ids()) id += medium == id ? 1 : 0;
  return id;
}

at::ScalarType activation_dtype(const VisionLanguageModel& model) {
  return model.device().is_cpu() || model.product_dtype == at::kFloat ? model.dtype()
                                                                      : model.product_dtype;
}

KvStorage choose_kv_storage(const std::string& name, const VisionLanguageModel& model) {
  const bool is_float = model.device().is_cpu() && model.dtype() == at::kFloat;
  const std::string computed = model.dtype() == at::kFloat      ? "float32"
                               : model.dtype() == at::kBFloat16 ? "bfloat16"
                                                                : "float16";
  if (name == computed) return KvStorage::kComputed;
  if (name == "auto") {
    return is_float && multiplies_narrowly(model) ? KvStorage::kBfloat16 : KvStorage::kComputed;
  }
  if (is_float && name == "bfloat16") return KvStorage::kBfloat16;
  if (is_float && name == "int8") return KvStorage::kInt8;
  throw Error(
      {.what = "keys and values can't be held so",
       .where = "--kv-dtype",
       .got = concat("'", name, "'"),
       .wanted = is_float ? "auto, float32, bfloat16 or int8"
                          : concat("auto or ", computed, ", which the model computes in on this ",
                                   model.device().is_cpu() ? "CPU" : "GPU")});
}

}  // namespace vlm

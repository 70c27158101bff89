#include "vlm/nn/weights/stored_int4.h"

#include <c10/core/GradMode.h>

#include "vlm/nn/cpu/int4/int4_linear.h"

namespace vlm {
namespace {

Int4Map int4_map_of(const StoredMap& map) {
  return {&weight_of<StoredInt4>(map).weight(), map.bias};
}

}  // namespace

std::int64_t StoredInt4::nbytes() const {
  return static_cast<std::int64_t>(weight_.blocks.nbytes() + weight_.row_scales.nbytes());
}

std::vector<std::pair<const char*, at::Tensor>> StoredInt4::buffers() const {
  return {{"blocks", weight_.blocks}, {"row_scales", weight_.row_scales}};
}

at::Tensor StoredInt4::multiply(const at::Tensor& x, const at::Tensor& added,
                                at::ScalarType /*product_dtype*/) const {
  TORCH_CHECK(!c10::GradMode::is_enabled() || !x.requires_grad(),
              "a weight in 4 bits passes no gradient");
  return int4_linears(x, {{&weight_, added}})[0];
}

std::vector<at::Tensor> StoredInt4::multiply_each(const at::Tensor& x,
                                                  const std::vector<StoredMap>& maps) const {
  std::vector<Int4Map> int4_maps;
  for (const StoredMap& map : maps) int4_maps.push_back(int4_map_of(map));
  return int4_linears(x, int4_maps);
}

at::Tensor StoredInt4::gelu_mlp(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                                Gelu kind) const {
  return int4_gelu_mlp(x, int4_map_of(fc1), int4_map_of(fc2), kind);
}

at::Tensor StoredInt4::gated_mlp(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                                 const StoredMap& down) const {
  return int4_gated_mlp(x, int4_map_of(gate), int4_map_of(up), int4_map_of(down));
}

std::shared_ptr<const StoredWeight> StoredInt4::rows(std::int64_t first, std::int64_t count) const {
  if (first % kInt4Outputs != 0 || count % kInt4Outputs != 0) return nullptr;
  return std::make_shared<StoredInt4>(
      Int4Weight{.blocks = weight_.blocks.narrow(0, first / kInt4Outputs, count / kInt4Outputs),
                 .row_scales = weight_.row_scales.narrow(0, first, count),
                 .levels = weight_.levels});
}

}  // namespace vlm

#include "vlm/nn/weights/stored_int8.h"

#include <c10/core/GradMode.h>

#include "vlm/nn/cpu/int8/int8_linear.h"

namespace vlm {
namespace {

Int8Map int8_map_of(const StoredMap& map) {
  return {&weight_of<StoredInt8>(map).weight(), map.bias};
}

}  // namespace

std::int64_t StoredInt8::nbytes() const {
  return static_cast<std::int64_t>(weight_.codes.nbytes() + weight_.scales.nbytes());
}

std::vector<std::pair<const char*, at::Tensor>> StoredInt8::buffers() const {
  return {{"codes", weight_.codes}, {"scales", weight_.scales}};
}

at::Tensor StoredInt8::multiply(const at::Tensor& x, const at::Tensor& added,
                                at::ScalarType /*product_dtype*/) const {
  TORCH_CHECK(!c10::GradMode::is_enabled() || !x.requires_grad(),
              "a weight in 8 bits passes no gradient");
  return int8_linears(x, {{&weight_, added}})[0];
}

std::vector<at::Tensor> StoredInt8::multiply_each(const at::Tensor& x,
                                                  const std::vector<StoredMap>& maps) const {
  std::vector<Int8Map> int8_maps;
  for (const StoredMap& map : maps) int8_maps.push_back(int8_map_of(map));
  return int8_linears(x, int8_maps);
}

at::Tensor StoredInt8::gelu_mlp(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                                Gelu kind) const {
  return int8_gelu_mlp(x, int8_map_of(fc1), int8_map_of(fc2), kind);
}

at::Tensor StoredInt8::gated_mlp(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                                 const StoredMap& down) const {
  return int8_gated_mlp(x, int8_map_of(gate), int8_map_of(up), int8_map_of(down));
}

std::shared_ptr<const StoredWeight> StoredInt8::rows(std::int64_t first, std::int64_t count) const {
  return std::make_shared<StoredInt8>(Int8Weight{.codes = weight_.codes.narrow(0, first, count),
                                                 .scales = weight_.scales.narrow(0, first, count),
                                                 .in_features = weight_.in_features});
}

}  // namespace vlm

#include "vlm/nn/weights/stored_weight.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <typeinfo>

namespace vlm {
namespace {

// Whether the maps' weights can be multiplied together with x.
bool are_alike(const at::Tensor& x, std::initializer_list<const StoredMap*> maps) {
  if (c10::GradMode::is_enabled() || !x.is_cpu() || x.scalar_type() != at::kFloat) return false;
  const StoredMap& first = **maps.begin();
  const StoredWeight& weight = *first.weight;
  return std::ranges::all_of(maps, [&](const StoredMap* map) {
    const StoredWeight& other = *map->weight;
    return typeid(other) == typeid(weight) && map->product_dtype == first.product_dtype;
  });
}

}  // namespace

std::vector<at::Tensor> multiply_each(const at::Tensor& x, const std::vector<StoredMap>& maps) {
  const StoredMap* first = maps.data();
  const bool fit = std::ranges::all_of(maps, [&](const StoredMap& map) {
    return are_alike(x, {first, &map});
  });
  if (maps.empty() || !fit) return {};
  return first->weight->multiply_each(x, maps);
}

at::Tensor multiply_gelu(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                         Gelu kind) {
  if (!are_alike(x, {&fc1, &fc2})) return {};
  return fc1.weight->gelu_mlp(x, fc1, fc2, kind);
}

at::Tensor multiply_gated(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                          const StoredMap& down) {
  if (!are_alike(x, {&gate, &up, &down})) return {};
  return gate.weight->gated_mlp(x, gate, up, down);
}

}  // namespace vlm

#include "vlm/nn/weights/stored_dense.h"

#include <ATen/ops/linear.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "vlm/nn/cpu/bfloat16/bfloat16_product.h"
#include "vlm/nn/cpu/matrix_rows.h"
#include "vlm/nn/cpu/onednn_linear.h"
#include "vlm/nn/frozen_linear.h"

namespace vlm {
namespace {

constexpr std::int64_t kManyRows = 64;  // fewer would fill no panel

// On a GPU what is trained is stored in float32 and follows the dtype of what it meets.
at::Tensor as_factor(const at::Tensor& parameter, const at::Tensor& x) {
  return parameter.defined() && !x.is_cpu() ? parameter.to(x.scalar_type()) : parameter;
}

at::Tensor dense_of(const StoredMap& map) {
  return weight_of<StoredDense>(map).dense();
}

WeightAndBias narrow_map_of(const StoredMap& map) {
  return {dense_of(map), map.bias};
}

bool is_bfloat16(const StoredMap& map) {
  return dense_of(map).scalar_type() == at::kBFloat16;
}

// x as rows for products in bfloat16 by all of the maps; undefined where there are none.
at::Tensor rows_for_panels(const at::Tensor& x, std::initializer_list<const StoredMap*> maps) {
  const auto fits = [](const StoredMap* map) {
    return is_bfloat16(*map) && map->product_dtype == at::kBFloat16 &&
           dense_of(*map).size(1) % 2 == 0;
  };
  if (x.numel() / x.size(-1) < kManyRows || !std::ranges::all_of(maps, fits)) return {};
  at::Tensor rows = as_rows(x);
  return can_multiply_in_panels(rows) ? rows : at::Tensor();
}

}  // namespace

std::string StoredDense::format() const {
  switch (weight_.scalar_type()) {
    case at::kFloat:
      return "float32";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      return c10::toString(weight_.scalar_type());
  }
}

at::Tensor StoredDense::multiply(const at::Tensor& x, const at::Tensor& added,
                                 at::ScalarType product_dtype) const {
  const bool is_mixed = weight_.scalar_type() == at::kBFloat16 && x.scalar_type() == at::kFloat;
  if (is_mixed) return frozen_bfloat16_linear(x, weight_, added, product_dtype);
  const bool is_plain =
      !(c10::GradMode::is_enabled() && (x.requires_grad() || weight_.requires_grad() ||
                                        (added.defined() && added.requires_grad())));
  const bool is_onednn = is_plain && weight_.scalar_type() == at::kFloat &&
                         prefers_onednn(x, x.numel() / weight_.size(1));
  return is_onednn ? onednn_linear(x, weight_, added)
                   : at::linear(x, as_factor(weight_, x), as_factor(added, x));
}

std::vector<at::Tensor> StoredDense::multiply_each(const at::Tensor& x,
                                                   const std::vector<StoredMap>& maps) const {
  if (!std::ranges::all_of(maps, is_bfloat16)) return {};
  std::vector<WeightAndBias> narrow;
  narrow.reserve(maps.size());
  for (const StoredMap& map : maps) narrow.push_back(narrow_map_of(map));
  return bfloat16_linears(x, narrow, maps[0].product_dtype);
}

at::Tensor StoredDense::gelu_mlp(const at::Tensor& x, const StoredMap& fc1, const StoredMap& fc2,
                                 Gelu kind) const {
  const at::Tensor rows = rows_for_panels(x, {&fc1, &fc2});
  if (!rows.defined()) return {};
  return shaped_like(x, panel_gelu_mlp(rows, narrow_map_of(fc1), narrow_map_of(fc2), kind));
}

at::Tensor StoredDense::gated_mlp(const at::Tensor& x, const StoredMap& gate, const StoredMap& up,
                                  const StoredMap& down) const {
  const at::Tensor rows = rows_for_panels(x, {&gate, &up, &down});
  if (!rows.defined()) return {};
  return shaped_like(
      x, panel_gated_mlp(rows, narrow_map_of(gate), narrow_map_of(up), narrow_map_of(down)));
}

std::shared_ptr<const StoredWeight> StoredDense::rows(std::int64_t first,
                                                      std::int64_t count) const {
  return std::make_shared<StoredDense>(weight_.narrow(0, first, count));
}

}  // namespace vlm

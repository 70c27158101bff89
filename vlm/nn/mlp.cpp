#include "vlm/nn/mlp.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <vector>

#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_product.h"
#include "vlm/nn/cpu/int8/int8_linear.h"
#include "vlm/nn/cpu/matrix_rows.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

constexpr std::int64_t kManyRows = 64;  // fewer would fill no panel

WeightAndBias map_of(const Linear& layer) {
  return {layer.weight, layer.bias};
}

Int8Map int8_map_of(const Linear& layer) {
  return {layer.int8(), layer.bias};
}

bool are_int8(const std::vector<const Linear*>& layers) {
  return !c10::GradMode::is_enabled() &&
         std::all_of(layers.begin(), layers.end(),
                     [](const Linear* layer) { return layer->is_plain_int8(); });
}

// x as rows for products in bfloat16 by all of the layers; undefined where there are none.
at::Tensor rows_for_panels(const at::Tensor& x, const std::vector<const Linear*>& layers) {
  const auto is_plain = [](const Linear* layer) {
    return layer->is_plain_bfloat16(at::kBFloat16) && layer->in_features() % 2 == 0;
  };
  if (c10::GradMode::is_enabled() || !x.is_cpu() || x.numel() / x.size(-1) < kManyRows ||
      !std::all_of(layers.begin(), layers.end(), is_plain)) {
    return {};
  }
  at::Tensor rows = as_rows(x);
  return can_multiply_in_panels(rows) ? rows : at::Tensor();
}

// The whole MLP in bfloat16 panels or in 8 bits; undefined where it isn't stored so.
at::Tensor quick_gated_mlp(const at::Tensor& x, const Linear& gate, const Linear& up,
                           const Linear& down) {
  if (are_int8({&gate, &up, &down})) {
    return int8_gated_mlp(x, int8_map_of(gate), int8_map_of(up), int8_map_of(down));
  }
  const at::Tensor rows = rows_for_panels(x, {&gate, &up, &down});
  if (!rows.defined()) return {};
  return shaped_like(x, panel_gated_mlp(rows, map_of(gate), map_of(up), map_of(down)));
}

}  // namespace

at::Tensor gelu_mlp(const at::Tensor& x, const Linear& fc1, const Linear& fc2, Gelu kind) {
  if (are_int8({&fc1, &fc2})) return int8_gelu_mlp(x, int8_map_of(fc1), int8_map_of(fc2), kind);
  const at::Tensor rows = rows_for_panels(x, {&fc1, &fc2});
  if (rows.defined()) return shaped_like(x, panel_gelu_mlp(rows, map_of(fc1), map_of(fc2), kind));
  return fc2.forward(gelu(fc1.forward(x), kind, fc1.product_dtype));
}

at::Tensor gated_mlp(const at::Tensor& x, const Linear& gate, const Linear& up,
                     const Linear& down) {
  const at::Tensor y = quick_gated_mlp(x, gate, up, down);
  if (y.defined()) return y;
  const std::vector<at::Tensor> projected = forward_each(x, {&gate, &up});
  return down.forward(gated_silu(projected[0], projected[1], gate.product_dtype));
}

at::Tensor fused_gated_mlp(const at::Tensor& x, const Linear& gate_up, const Linear& down) {
  const at::Tensor rows = rows_for_panels(x, {&gate_up, &down});
  if (rows.defined()) {
    const WeightAndBias both = map_of(gate_up);
    const auto half = [&](std::int64_t i) -> WeightAndBias {
      const std::int64_t size = gate_up.out_features() / 2;
      return {both.weight.narrow(0, i * size, size),
              both.bias.defined() ? both.bias.narrow(0, i * size, size) : at::Tensor()};
    };
    return shaped_like(x, panel_gated_mlp(rows, half(0), half(1), map_of(down)));
  }
  const std::vector<at::Tensor> halves = gate_up.forward(x).chunk(2, -1);
  return down.forward(gated_silu(halves[0], halves[1], gate_up.product_dtype));
}

at::Tensor add_gated_mlp(const at::Tensor& residual, const at::Tensor& x, const Linear& gate,
                         const Linear& up, const Linear& down) {
  const at::Tensor joined = forward_joined(x, {&gate, &up});
  if (!joined.defined()) return add_residual(gated_mlp(x, gate, up, down), residual);
  const std::vector<at::Tensor> projected = joined.chunk(2, -1);
  return add_projected(residual, down, gated_silu(projected[0], projected[1], gate.product_dtype));
}

}  // namespace vlm

#include "vlm/nn/mlp.h"

#include <algorithm>
#include <vector>

#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/layers.h"

namespace vlm {
namespace {

bool are_plain(const std::vector<const Linear*>& layers) {
  return std::ranges::all_of(layers, [](const Linear* layer) { return layer->is_plain(); });
}

// The halves of gate_up's outputs as maps, and down; undefined where they aren't stored so that
// they can be multiplied together.
at::Tensor multiply_fused(const at::Tensor& x, const Linear& gate_up, const Linear& down) {
  const StoredMap both = gate_up.map();
  const std::int64_t size = gate_up.out_features() / 2;
  std::vector<StoredMap> halves;
  for (const std::int64_t first : {std::int64_t{0}, size}) {
    const auto rows = both.weight->rows(first, size);
    if (!rows) return {};
    const at::Tensor bias = both.bias.defined() ? both.bias.narrow(0, first, size) : both.bias;
    halves.push_back({rows, bias, both.product_dtype});
  }
  return multiply_gated(x, halves[0], halves[1], down.map());
}

}  // namespace

at::Tensor gelu_mlp(const at::Tensor& x, const Linear& fc1, const Linear& fc2, Gelu kind) {
  at::Tensor y;
  if (are_plain({&fc1, &fc2})) y = multiply_gelu(x, fc1.map(), fc2.map(), kind);
  return y.defined() ? y : fc2.forward(gelu(fc1.forward(x), kind, fc1.product_dtype));
}

at::Tensor gated_mlp(const at::Tensor& x, const Linear& gate, const Linear& up,
                     const Linear& down) {
  at::Tensor y;
  if (are_plain({&gate, &up, &down})) y = multiply_gated(x, gate.map(), up.map(), down.map());
  if (y.defined()) return y;
  const std::vector<at::Tensor> projected = forward_each(x, {&gate, &up});
  return down.forward(gated_silu(projected[0], projected[1], gate.product_dtype));
}

at::Tensor fused_gated_mlp(const at::Tensor& x, const Linear& gate_up, const Linear& down) {
  at::Tensor y;
  if (are_plain({&gate_up, &down})) y = multiply_fused(x, gate_up, down);
  if (y.defined()) return y;
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

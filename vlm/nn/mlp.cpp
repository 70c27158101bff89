#include "vlm/nn/mlp.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <vector>

#include "vlm/nn/cpu/activations.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_panels.h"
#include "vlm/nn/cpu/bfloat16/bfloat16_product.h"
#include "vlm/nn/cpu/matrix_rows.h"
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

constexpr std::int64_t kPanelRows = 64;  // fewer would fill no panel

// Layers whose products are in bfloat16 by panels, for x in float32 or bfloat16.
class NarrowBlock {
 public:
  NarrowBlock(const at::Tensor& x, const std::vector<const Linear*>& layers) : layers_(layers) {
    const bool is_known = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
    if (c10::GradMode::is_enabled() || !x.is_cpu() || !is_known) return;
    if (x.numel() / x.size(-1) < kPanelRows) return;
    is_usable_ = std::ranges::all_of(layers, [](const Linear* layer) {
      return layer->is_plain() && layer->product_dtype == at::kBFloat16 &&
             layer->weight.defined() && layer->weight.scalar_type() == at::kBFloat16 &&
             layer->weight.is_contiguous() && layer->in_features() % 2 == 0 &&
             (!layer->bias.defined() || layer->bias.scalar_type() == at::kFloat);
    });
    if (!is_usable_) return;
    rows_ = as_rows(x);
    is_usable_ = has_panel_products();
  }
  // The last layer's result is added to `residual`, or to a copy of one that isn't contiguous.
  NarrowBlock(const at::Tensor& x, const std::vector<const Linear*>& layers,
              const at::Tensor& residual)
      : NarrowBlock(x, layers) {
    is_usable_ = is_usable_ && residual.scalar_type() == at::kFloat;
    if (is_usable_) sum_ = residual.contiguous();
  }

  bool is_usable() const { return is_usable_; }
  const at::Tensor& rows() const { return rows_; }
  const at::Tensor& sum() const { return sum_; }
  WeightAndBias map(std::size_t i) const { return {layers_[i]->weight, layers_[i]->bias}; }
  AddedBranch added(const at::Tensor& scale) const {
    const at::Tensor wide = scale.defined() ? scale.to(at::kFloat).contiguous() : scale;
    return {wide, sum_.view({-1, sum_.size(-1)})};
  }

 private:
  std::vector<const Linear*> layers_;
  at::Tensor rows_, sum_;
  bool is_usable_ = false;
};

// residual + scale · branch; overwrites the branch where no gradient is recorded.
at::Tensor add_scaled(at::Tensor branch, const at::Tensor& scale, const at::Tensor& residual) {
  if (!scale.defined()) return add_residual(std::move(branch), residual);
  const at::Tensor factor = scale.to(branch.scalar_type());
  return c10::GradMode::is_enabled() ? factor * branch + residual
                                     : branch.mul_(factor).add_(residual);
}

}  // namespace

std::vector<at::Tensor> narrow_linears(const at::Tensor& x,
                                       const std::vector<const Linear*>& layers) {
  const NarrowBlock block(x, layers);
  if (!block.is_usable()) return {};
  std::vector<WeightAndBias> maps;
  for (std::size_t i = 0; i < layers.size(); ++i) maps.push_back(block.map(i));
  std::vector<at::Tensor> found = narrow_panel_linears(block.rows(), maps);
  for (at::Tensor& y : found) y = shaped_like(x, y);
  return found;
}

at::Tensor add_layer(const at::Tensor& residual, const at::Tensor& x, const Linear& layer,
                     const at::Tensor& scale) {
  const NarrowBlock block(x, {&layer}, residual);
  if (!block.is_usable()) {
    return add_scaled(layer.forward(x.to(residual.scalar_type())), scale, residual);
  }
  add_panel_linear(block.rows(), block.map(0), block.added(scale));
  return block.sum();
}

at::Tensor add_gelu_mlp(const at::Tensor& residual, const at::Tensor& x, const Linear& fc1,
                        const Linear& fc2, Gelu kind, const at::Tensor& scale) {
  const NarrowBlock block(x, {&fc1, &fc2}, residual);
  if (!block.is_usable()) return add_scaled(gelu_mlp(x, fc1, fc2, kind), scale, residual);
  add_panel_gelu_mlp(block.rows(), block.map(0), block.map(1), kind, block.added(scale));
  return block.sum();
}

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
  if (!joined.defined()) {
    const NarrowBlock block(x, {&gate, &up, &down}, residual);
    if (!block.is_usable()) return add_residual(gated_mlp(x, gate, up, down), residual);
    add_panel_gated_mlp(block.rows(), block.map(0), block.map(1), block.map(2), block.added({}));
    return block.sum();
  }
  const std::vector<at::Tensor> projected = joined.chunk(2, -1);
  return add_projected(residual, down, gated_silu(projected[0], projected[1], gate.product_dtype));
}

}  // namespace vlm

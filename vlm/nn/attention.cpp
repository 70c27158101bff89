#include "vlm/nn/attention.h"

#include <ATen/ops/scaled_dot_product_attention.h>

#include <optional>

namespace vlm {

at::Tensor repeat_heads(const at::Tensor& t, std::int64_t groups) {
  if (groups == 1) return t;
  return t.unsqueeze(2).expand({t.size(0), t.size(1), groups, t.size(2), t.size(3)}).flatten(1, 2);
}

at::Tensor grouped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& mask, bool is_causal) {
  const std::int64_t groups = q.size(1) / k.size(1);
  return at::scaled_dot_product_attention(q, repeat_heads(k, groups), repeat_heads(v, groups),
                                          mask.defined() ? std::optional(mask) : std::nullopt, 0.0,
                                          is_causal);
}

}  // namespace vlm

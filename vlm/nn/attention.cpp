#include "vlm/nn/attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "vlm/nn/cpu/bfloat16/bfloat16_attention.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/mlp.h"

namespace vlm {
namespace {

constexpr std::int64_t kManyQueries = 128;  // fewer don't pay for packing keys and values

// Query i of T sees the keys 0 … S - T + i. [T, S] bool
at::Tensor make_causal_mask(const at::Tensor& q, const at::Tensor& k) {
  const at::Tensor all = at::ones({q.size(2), k.size(2)}, q.options().dtype(at::kBool));
  return all.tril(k.size(2) - q.size(2));
}

}  // namespace

at::Tensor repeat_heads(const at::Tensor& t, std::int64_t groups) {
  if (groups == 1) return t;
  return t.unsqueeze(2).expand({t.size(0), t.size(1), groups, t.size(2), t.size(3)}).flatten(1, 2);
}

at::Tensor grouped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& mask, bool is_causal, at::ScalarType product_dtype) {
  const bool is_rounded = product_dtype == at::kBFloat16 && q.size(2) >= kManyQueries &&
                          !mask.defined() && !c10::GradMode::is_enabled() &&
                          can_attend_in_bfloat16(q);
  if (is_rounded) return bfloat16_attention(q, k, v, is_causal);
  if (is_causal && !mask.defined() && q.size(2) != k.size(2)) {
    return grouped_attention(q, k, v, make_causal_mask(q, k), /*is_causal=*/false);
  }
  const std::int64_t groups = q.size(1) / k.size(1);
  // Flash attention reads grouped heads as they are.
  const bool is_flash = !q.is_cpu() && !mask.defined() && q.scalar_type() != at::kFloat;
  if (is_flash) {
    return at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, is_causal, std::nullopt,
                                            /*enable_gqa=*/groups > 1);
  }
  return at::scaled_dot_product_attention(q, repeat_heads(k, groups), repeat_heads(v, groups),
                                          mask.defined() ? std::optional(mask) : std::nullopt, 0.0,
                                          is_causal);
}

namespace {

// Queries, keys and values of all heads; in bfloat16 where that is what they are rounded to.
std::vector<at::Tensor> project_rows(const at::Tensor& x, const std::vector<const Linear*>& layers,
                                     bool is_rounded) {
  std::vector<at::Tensor> found;
  if (is_rounded) found = narrow_linears(x, layers);
  if (found.empty()) found = forward_each(x, layers);
  return found.size() == 1 ? found[0].chunk(3, -1) : found;
}

}  // namespace

at::Tensor self_attention(const at::Tensor& x, const SelfProjections& layers,
                          const at::Tensor& mask) {
  std::vector<const Linear*> projections = {layers.q};
  if (layers.k) projections = {layers.q, layers.k, layers.v};
  const std::int64_t width =
      projections.size() == 1 ? layers.q->out_features() / 3 : layers.q->out_features();
  const auto dtype = layers.q->product_dtype;
  const bool is_rounded = dtype == at::kBFloat16 && x.size(1) >= kManyQueries && !mask.defined() &&
                          !c10::GradMode::is_enabled() && width / layers.heads % 2 == 0;
  const std::vector<at::Tensor> each = project_rows(x, projections, is_rounded);
  const auto split = [&](const at::Tensor& t) {  // [B, H, T, D]
    return t.view({x.size(0), x.size(1), layers.heads, -1}).transpose(1, 2);
  };
  return grouped_attention(split(each[0]), split(each[1]), split(each[2]), mask,
                           /*is_causal=*/false, dtype)
      .transpose(1, 2)
      .flatten(2);
}

const SegmentPlaces& SegmentLengths::places(at::Device device) const {
  if (!places_.queries.defined() || places_.queries.device() != device) {
    places_ = place_segments(lengths_, device);
  }
  return places_;
}

at::Tensor segment_attention(const SegmentedRows& rows, const SegmentLengths& segments,
                             at::ScalarType product_dtype) {
  const std::vector<std::int64_t>& lengths = segments.lengths();
  const bool are_alike = std::ranges::adjacent_find(lengths, std::not_equal_to()) == lengths.end();
  if (!are_alike && can_attend_in_segments(rows.q, rows.k, rows.v)) {
    return attend_in_segments(rows.q, rows.k, rows.v, segments.places(rows.q.device()),
                              /*is_causal=*/false);
  }
  std::vector<at::Tensor> parts;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < lengths.size();) {
    std::size_t end = i;
    while (end < lengths.size() && lengths[end] == lengths[i]) ++end;
    const auto count = static_cast<std::int64_t>(end - i), length = lengths[i];
    const auto stacked = [&](const at::Tensor& t) {  // [count, H, length, D]
      return t.squeeze(0)
          .narrow(1, begin, count * length)
          .unflatten(1, {count, length})
          .transpose(0, 1);
    };
    const at::Tensor part = grouped_attention(stacked(rows.q), stacked(rows.k), stacked(rows.v), {},
                                              /*is_causal=*/false, product_dtype);
    parts.push_back(part.transpose(0, 1).flatten(1, 2));
    begin += count * length;
    i = end;
  }
  TORCH_CHECK(begin == rows.q.size(2), "segments of ", begin, " rows for ", rows.q.size(2));
  return (parts.size() == 1 ? parts[0] : at::cat(parts, 1)).unsqueeze(0);
}

}  // namespace vlm

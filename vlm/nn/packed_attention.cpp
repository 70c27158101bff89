#include "vlm/nn/packed_attention.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "vlm/nn/attention.h"
#include "vlm/nn/upload.h"

namespace vlm {
namespace {

using Segments = std::vector<Segment>;

// The gradient of repeat_heads: [B, H, S, D] → [B, K, S, D].
at::Tensor sum_heads(const at::Tensor& t, std::int64_t groups) {
  return groups == 1 ? t : t.unflatten(1, {t.size(1) / groups, groups}).sum(2);
}

constexpr std::int64_t kMaskStep = 8;  // of a mask's rows in memory, as GPUs ask for

at::Tensor make_mask(const Segment& segment, const at::TensorOptions& options) {
  const std::int64_t prefix = segment.prefix_length, length = segment.length;
  const std::int64_t width = prefix + length;
  const std::int64_t stride =
      options.device().is_cpu() ? width : (width + kMaskStep - 1) / kMaskStep * kMaskStep;
  at::Tensor mask = at::zeros({1, 1, length, stride}, options).narrow(-1, 0, width);
  mask.narrow(-1, prefix, length)
      .copy_(at::full({length, length}, -std::numeric_limits<double>::infinity(), options).triu(1));
  return mask;
}

// Keys or values that a segment sees.
at::Tensor seen_by(const Segment& segment, const at::Tensor& t) {
  const at::Tensor own = t.narrow(2, segment.begin, segment.length);
  if (segment.prefix_length == 0) return own;
  return at::cat({t.narrow(2, segment.prefix_begin, segment.prefix_length), own}, 2);
}

at::Tensor attend_segment(const Segment& segment, const at::Tensor& mask, const at::Tensor& q,
                          const at::Tensor& k, const at::Tensor& v) {
  return grouped_attention(q.narrow(2, segment.begin, segment.length), seen_by(segment, k),
                           seen_by(segment, v), mask, !mask.defined() && segment.length > 1);
}

void add_gradient(const Segment& segment, const at::Tensor& grad, at::Tensor& total) {
  const std::int64_t prefix = segment.prefix_length;
  total.narrow(2, segment.begin, segment.length).add_(grad.narrow(2, prefix, segment.length));
  if (prefix > 0) {
    total.narrow(2, segment.prefix_begin, prefix).add_(grad.narrow(2, 0, prefix));
  }
}

// The row travels to backward as an opaque value.
struct RowHolder : torch::CustomClassHolder {
  std::shared_ptr<const PackedRow> row;
};

class CpuAttention : public torch::autograd::Function<CpuAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v,
                            const c10::intrusive_ptr<RowHolder>& holder) {
    const std::int64_t groups = q.size(1) / k.size(1);
    // In memory [B, T, H, D], as the next projection reads it.
    at::Tensor out =
        at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options()).transpose(1, 2);
    // The logarithms of the sums are wide whatever the queries are.
    at::Tensor sums = at::empty({q.size(0), q.size(1), q.size(2)},
                                q.options().dtype(at::toOpMathType(q.scalar_type())));
    const Segments& segments = holder->row->segments();
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const Segment& segment = segments[i];
      const auto [part, sum] = at::_scaled_dot_product_flash_attention_for_cpu(
          q.narrow(2, segment.begin, segment.length), repeat_heads(seen_by(segment, k), groups),
          repeat_heads(seen_by(segment, v), groups), 0.0, segment.prefix_length == 0,
          mask_of(holder, i, q));
      out.narrow(2, segment.begin, segment.length).copy_(part);
      sums.narrow(2, segment.begin, segment.length).copy_(sum);
    }
    context->save_for_backward({q, k, v, out, sums});
    context->saved_data["row"] = c10::IValue::make_capsule(holder);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto holder =
        c10::static_intrusive_pointer_cast<RowHolder>(context->saved_data["row"].toCapsule());
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
    const std::int64_t groups = q.size(1) / k.size(1);
    at::Tensor grad_q = at::empty_like(q), grad_k = at::zeros_like(k), grad_v = at::zeros_like(v);
    const Segments& segments = holder->row->segments();
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const Segment& segment = segments[i];
      const auto own = [&](const at::Tensor& t) {
        return t.narrow(2, segment.begin, segment.length);
      };
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          own(grads[0]), own(q), repeat_heads(seen_by(segment, k), groups),
          repeat_heads(seen_by(segment, v), groups), own(out), own(saved[4]), 0.0,
          segment.prefix_length == 0, mask_of(holder, i, q));
      own(grad_q).copy_(dq);
      add_gradient(segment, sum_heads(dk, groups), grad_k);
      add_gradient(segment, sum_heads(dv, groups), grad_v);
    }
    return {grad_q, grad_k, grad_v, at::Tensor()};
  }

 private:
  static std::optional<at::Tensor> mask_of(const c10::intrusive_ptr<RowHolder>& holder,
                                           std::size_t segment, const at::Tensor& q) {
    const at::Tensor& mask = holder->row->mask(segment, q.options());
    return mask.defined() ? std::optional(mask) : std::nullopt;
  }
};

bool is_by_hand(const at::Tensor& q) {
  return q.is_cpu() && c10::GradMode::is_enabled();
}

}  // namespace

const at::Tensor& PackedRow::mask(std::size_t i, const at::TensorOptions& options) const {
  at::Tensor& mask = masks_[i];
  const bool is_made = mask.defined() && mask.scalar_type() == options.dtype().toScalarType();
  if (segments_[i].prefix_length > 0 && !is_made) mask = make_mask(segments_[i], options);
  return mask;
}

const SegmentPlaces& PackedRow::places(at::Device device) const {
  if (places_.queries.defined() && places_.queries.device() == device) return places_;
  std::vector<std::int64_t> queries = {0}, keys = {0}, seen;
  places_ = {};
  bool has_prefixes = false;
  for (const Segment& segment : segments_) {
    const std::int64_t key_count = segment.prefix_length + segment.length;
    queries.push_back(queries.back() + segment.length);
    keys.push_back(keys.back() + key_count);
    places_.most_queries = std::max(places_.most_queries, segment.length);
    places_.most_keys = std::max(places_.most_keys, key_count);
    has_prefixes = has_prefixes || segment.prefix_length > 0;
    for (std::int64_t i = 0; i < segment.prefix_length; ++i) {
      seen.push_back(segment.prefix_begin + i);
    }
    for (std::int64_t i = 0; i < segment.length; ++i) seen.push_back(segment.begin + i);
  }
  if (!has_prefixes) seen.clear();
  const std::vector<at::Tensor> there = upload_lists({queries, keys, seen}, device);
  places_.queries = there[0].to(at::kInt);
  places_.keys = there[1].to(at::kInt);
  if (has_prefixes) places_.seen = there[2];
  return places_;
}

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::shared_ptr<const PackedRow>& row) {
  const Segments& segments = row->segments();
  TORCH_CHECK(q.size(0) == 1 && !segments.empty() &&
                  segments.back().begin + segments.back().length == q.size(2),
              "packed_attention: segments don't cover the row of ", q.size(2), " tokens");
  if (is_by_hand(q)) {
    auto holder = c10::make_intrusive<RowHolder>();
    holder->row = row;
    return CpuAttention::apply(q, k, v, holder);
  }
  if (segments.size() > 1 && can_attend_in_segments(q, k, v)) {
    return attend_in_segments(q, k, v, row->places(q.device()), /*is_causal=*/true);
  }
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    parts.push_back(attend_segment(segments[i], row->mask(i, q.options()), q, k, v));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 2);
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            at::ScalarType product_dtype) {
  if (!is_by_hand(q)) {
    return grouped_attention(q, k, v, {}, /*is_causal=*/q.size(2) > 1, product_dtype);
  }
  auto holder = c10::make_intrusive<RowHolder>();
  holder->row = std::make_shared<PackedRow>(Segments{{.begin = 0, .length = q.size(2)}});
  return CpuAttention::apply(q, k, v, holder);
}

at::Tensor packed_positions(const Segments& segments) {
  std::vector<at::Tensor> parts;
  for (const Segment& segment : segments) {
    parts.push_back(at::arange(segment.prefix_length, segment.prefix_length + segment.length));
  }
  return at::cat(parts).unsqueeze(0);
}

}  // namespace vlm

// Attention as CUDA of compute capability 8 chooses it: flash for half types without a mask, else
// the memory-efficient kernel where heads and alignment allow, else the plain composition. Both
// kernels are run by the CPU's flash attention, whose results have the same shapes.
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <torch/library.h>

#include <array>

#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/graph.h"
#include "tests/support/simulated_cuda/host_call.h"
#include "tests/support/simulated_cuda/host_side.h"
#include "tests/support/simulated_cuda/refusals.h"

namespace simulated_cuda {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<at::Tensor>;

constexpr std::int64_t kWidestFlashHead = 256;
constexpr std::int64_t kAlignment = 16;  // bytes of a head, for the efficient kernel

bool is_half(const Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
}

// What both kernels ask.
bool is_common(const sdp::sdp_params& params) {
  const std::int64_t head = params.query.size(-1);
  return sdp::check_tensor_shapes(params, false) &&
         sdp::check_nonzero_sequence_lengths_dense(params, false) &&
         sdp::check_for_dropout(params, false) && head == params.key.size(-1) && head > 0 &&
         head == params.value.size(-1);
}

bool can_flash(const sdp::sdp_params& params) {
  const bool is_square = params.query.size(-2) == params.key.size(-2);
  return sdp::check_runtime_disabled_flash(params, false) && is_half(params.query) &&
         is_common(params) && sdp::check_for_attn_mask(params, false) &&
         sdp::check_batch_size_and_num_heads_dense<true>(params, false) &&
         sdp::check_last_dim_stride_equals_1_dense<true>(params, false) &&
         params.query.size(-1) <= kWidestFlashHead && (!params.is_causal || is_square);
}

bool can_be_efficient(const sdp::sdp_params& params) {
  const bool has_type = is_half(params.query) || params.query.scalar_type() == at::kFloat;
  return sdp::check_runtime_disabled_mem_efficient(params, false) && has_type &&
         is_common(params) && sdp::check_batch_size_and_num_heads_dense<false>(params, false) &&
         sdp::check_attn_mask_shape(params, false) &&
         sdp::check_last_dim_stride_equals_1_dense<false>(params, false) &&
         params.query.size(-1) * static_cast<std::int64_t>(params.query.itemsize()) % kAlignment ==
             0;
}

std::int64_t choose(const Tensor& query, const Tensor& key, const Tensor& value,
                    const OptionalTensor& mask, double dropout, bool is_causal,
                    std::optional<double>, bool enable_gqa) {
  const sdp::sdp_params params{query, key, value, mask, dropout, is_causal, enable_gqa};
  at::SDPBackend backend = at::SDPBackend::math;
  if (can_flash(params)) {
    backend = at::SDPBackend::flash_attention;
  } else if (can_be_efficient(params)) {
    backend = at::SDPBackend::efficient_attention;
  }
  return static_cast<std::int64_t>(backend);
}

// Key or value heads as many as query heads, each for its group.
Tensor repeat_heads(const Tensor& tensor, std::int64_t heads) {
  return tensor.size(1) == heads
             ? tensor
             : tensor.repeat_interleave(heads / tensor.size(1), 1, std::nullopt);
}

// The gradient of grouped heads: of [B, heads, S, D] the sums of groups.
Tensor sum_heads(const Tensor& gradient, std::int64_t heads) {
  if (gradient.size(1) == heads) return gradient;
  return gradient.unflatten(1, {heads, gradient.size(1) / heads}).sum(2);
}

struct Attention {
  Tensor query, key, value;
  OptionalTensor mask;
  bool is_causal = false;
  std::optional<double> scale;
};

OptionalTensor host_mask(const OptionalTensor& mask, HostSide& side) {
  if (!mask || !mask->defined()) return std::nullopt;
  return side.host(*mask);
}

std::tuple<Tensor, Tensor> forward(const Attention& call, HostSide& side) {
  check_one_device({call.query, call.key, call.value, call.mask.value_or(Tensor())});
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  if (are_products_off()) {
    return {at::zeros_like(call.query),
            at::zeros(call.query.sizes().slice(0, 3), call.query.options().dtype(at::kFloat))};
  }
  const std::int64_t heads = call.query.size(1);
  const auto [output, sums] = at::_scaled_dot_product_flash_attention_for_cpu(
      side.host(call.query), repeat_heads(side.host(call.key), heads),
      repeat_heads(side.host(call.value), heads), 0.0, call.is_causal, host_mask(call.mask, side),
      call.scale);
  return {side.device(output), side.device(sums)};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Attention& call, const Tensor& gradient,
                                            const Tensor& output, const Tensor& sums) {
  check_one_device({gradient, call.query, call.key, call.value, output, sums});
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  if (are_products_off()) {
    return {at::zeros_like(call.query), at::zeros_like(call.key), at::zeros_like(call.value)};
  }
  HostSide side;
  const std::int64_t heads = call.query.size(1);
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      side.host(gradient).contiguous(), side.host(call.query),
      repeat_heads(side.host(call.key), heads), repeat_heads(side.host(call.value), heads),
      side.host(output), side.host(sums), 0.0, call.is_causal, host_mask(call.mask, side),
      call.scale);
  return {side.device(dq), side.device(sum_heads(dk, call.key.size(1))),
          side.device(sum_heads(dv, call.value.size(1)))};
}

// The state of dropout that CUDA's kernels return.
Tensor no_state(const Tensor& like) {
  return at::empty({}, like.options().dtype(at::kLong));
}

using FlashResult =
    std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

FlashResult flash(const Tensor& query, const Tensor& key, const Tensor& value, double dropout,
                  bool is_causal, bool, std::optional<double> scale) {
  TORCH_CHECK(dropout == 0, "attention with dropout is not simulated");
  refuse_while_recording("attention of whole sequences, which isn't simulated there");
  count_operator("_scaled_dot_product_flash_attention");
  HostSide side;
  const auto [output, sums] = forward(
      {.query = query, .key = key, .value = value, .is_causal = is_causal, .scale = scale}, side);
  const Tensor none = at::empty({0}, query.options());
  const Tensor state = at::empty({2}, query.options().dtype(at::kLong));
  return {output, sums, Tensor(), Tensor(), query.size(2), key.size(2), state, none, none};
}

std::tuple<Tensor, Tensor, Tensor> flash_backward(const Tensor& gradient, const Tensor& query,
                                                  const Tensor& key, const Tensor& value,
                                                  const Tensor& output, const Tensor& sums,
                                                  const Tensor&, const Tensor&, c10::SymInt,
                                                  c10::SymInt, double, bool is_causal,
                                                  const Tensor&, const Tensor&,
                                                  std::optional<double> scale) {
  refuse_while_recording("attention of whole sequences, which isn't simulated there");
  count_operator("_scaled_dot_product_flash_attention_backward");
  return backward(
      {.query = query, .key = key, .value = value, .is_causal = is_causal, .scale = scale},
      gradient, output, sums);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient(const Tensor& query, const Tensor& key,
                                                     const Tensor& value,
                                                     const OptionalTensor& bias, bool has_sums,
                                                     double dropout, bool is_causal,
                                                     std::optional<double> scale) {
  TORCH_CHECK(dropout == 0, "attention with dropout is not simulated");
  refuse_while_recording("attention of whole sequences, which isn't simulated there");
  count_operator("_scaled_dot_product_efficient_attention");
  HostSide side;
  const auto [output, sums] = forward({query, key, value, bias, is_causal, scale}, side);
  const Tensor none = at::empty({query.size(0), query.size(1), 0}, sums.options());
  return {output, has_sums ? sums : none, no_state(query), no_state(query)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient_backward(
    const Tensor& gradient, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& bias, const Tensor& output, const Tensor& sums, const Tensor&, const Tensor&,
    double, std::array<bool, 4> wanted, bool is_causal, std::optional<double> scale) {
  if (!gradient.defined()) return {};
  TORCH_CHECK(!wanted[3], "the gradient of a mask is not simulated");
  refuse_while_recording("attention of whole sequences, which isn't simulated there");
  count_operator("_scaled_dot_product_efficient_attention_backward");
  const OptionalTensor mask = bias.defined() ? OptionalTensor(bias) : std::nullopt;
  const auto [dq, dk, dv] =
      backward({query, key, value, mask, is_causal, scale}, gradient, output, sums);
  return {dq, dk, dv, Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("_fused_sdp_choice", TORCH_FN(choose));
  library.impl("_scaled_dot_product_flash_attention", TORCH_FN(flash));
  library.impl("_scaled_dot_product_flash_attention_backward", TORCH_FN(flash_backward));
  library.impl("_scaled_dot_product_efficient_attention", TORCH_FN(efficient));
  library.impl("_scaled_dot_product_efficient_attention_backward", TORCH_FN(efficient_backward));
}

}  // namespace simulated_cuda

namespace at::native {
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &::simulated_cuda::choose)
}

// Flash attention of segments of several lengths that lie one behind the other, as CUDA's takes
// them: each is run by the CPU's flash attention. Causal is meant from the end of the keys.
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include <limits>

#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/graph.h"
#include "tests/support/simulated_cuda/host_call.h"
#include "tests/support/simulated_cuda/host_side.h"
#include "tests/support/simulated_cuda/refusals.h"

namespace simulated_cuda {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<at::Tensor>;
using OptionalSize = std::optional<c10::SymInt>;

constexpr std::int64_t kHeadStep = 8;

// On the host; [T, heads, D] and [n + 1].
struct Segments {
  Tensor query, key, value, query_places, key_places;
  bool is_causal;
  std::optional<double> scale;

  std::int64_t count() const { return query_places.size(0) - 1; }

  static Tensor cut(const Tensor& all, const Tensor& places, std::int64_t i) {
    const std::int64_t begin = places[i].item<int>(), end = places[i + 1].item<int>();
    TORCH_CHECK(0 <= begin && begin <= end && end <= all.size(0), "places beyond the tokens");
    return all.narrow(0, begin, end - begin);
  }
  // [1, heads, L, D]
  Tensor queries_in(const Tensor& all, std::int64_t i) const {
    return cut(all, query_places, i).transpose(0, 1).unsqueeze(0);
  }
  Tensor keys_in(const Tensor& all, std::int64_t i) const {
    return cut(all, key_places, i).transpose(0, 1).unsqueeze(0);
  }
  Tensor repeated_keys(const Tensor& all, std::int64_t i) const {
    return keys_in(all, i).repeat_interleave(query.size(1) / key.size(1), 1, std::nullopt);
  }
  // What is added to the scores; none where all lengths are alike.
  OptionalTensor mask(std::int64_t i) const {
    const std::int64_t rows = queries_in(query, i).size(2), columns = keys_in(key, i).size(2);
    if (!is_causal || rows == columns) return std::nullopt;
    const double hidden = -std::numeric_limits<double>::infinity();
    return at::full({1, 1, rows, columns}, hidden, query.options()).triu(columns - rows + 1);
  }
  bool is_plainly_causal(std::int64_t i) const { return is_causal && !mask(i); }
};

void check_places(const Tensor& places) {
  TORCH_CHECK(places.scalar_type() == at::kInt && places.dim() == 1 && places.is_contiguous(),
              "cu_seqlens must be contiguous and have dtype int32");
}

Segments take_segments(const Tensor& query, const Tensor& key, const Tensor& value,
                       const OptionalTensor& query_places, const OptionalTensor& key_places,
                       HostSide& side) {
  TORCH_CHECK(query_places && key_places, "one length for all is not simulated");
  check_one_device({query, key, value, *query_places, *key_places});
  check_places(*query_places);
  check_places(*key_places);
  for (const Tensor& tensor : {query, key, value}) {
    TORCH_CHECK(tensor.dim() == 3 && tensor.size(2) % kHeadStep == 0 && tensor.stride(-1) == 1 &&
                    (tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf),
                "FlashAttention only supports fp16 and bf16 data type, heads of a multiple of 8 "
                "numbers, and a contiguous last dimension");
  }
  return {side.host(query),       side.host(key), side.host(value), side.host(*query_places),
          side.host(*key_places), false,          std::nullopt};
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Results forward_segments(const Tensor& query, const Tensor& key, const Tensor& value,
                         const OptionalTensor& query_places, const OptionalTensor& key_places,
                         c10::SymInt, c10::SymInt, double dropout, bool is_causal, bool,
                         std::optional<double> scale, OptionalSize, OptionalSize,
                         const OptionalTensor&, const OptionalTensor&) {
  TORCH_CHECK(dropout == 0, "attention with dropout is not simulated");
  refuse_while_recording("attention of whole sequences, which isn't simulated there");
  count_operator("_flash_attention_forward");
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  Segments all = take_segments(query, key, value, query_places, key_places, side);
  all.is_causal = is_causal;
  all.scale = scale;
  const Tensor output = at::zeros(all.query.sizes(), all.query.options());
  const Tensor sums =
      at::zeros({all.query.size(1), all.query.size(0)}, all.query.options().dtype(at::kFloat));
  for (std::int64_t i = 0; i < all.count() && !are_products_off(); ++i) {
    const auto [part, sum] = at::_scaled_dot_product_flash_attention_for_cpu(
        all.queries_in(all.query, i), all.repeated_keys(all.key, i),
        all.repeated_keys(all.value, i), 0.0, all.is_plainly_causal(i), all.mask(i), scale);
    all.queries_in(output, i).copy_(part);
    Segments::cut(sums.t(), all.query_places, i).copy_(sum[0].t());
  }
  const Tensor state = at::empty({2}, query.options().dtype(at::kLong));
  const Tensor none = at::empty({0}, query.options());
  return {side.device(output), side.device(sums), state, none, none};
}

std::tuple<Tensor, Tensor, Tensor> backward_segments(
    const Tensor& gradient, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& output, const Tensor& sums, const Tensor& query_places, const Tensor& key_places,
    c10::SymInt, c10::SymInt, double, bool is_causal, const Tensor&, const Tensor&,
    std::optional<double> scale, OptionalSize, OptionalSize) {
  refuse_while_recording("attention of whole sequences, which isn't simulated there");
  count_operator("_flash_attention_backward");
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  Segments all = take_segments(query, key, value, query_places, key_places, side);
  all.is_causal = is_causal;
  const Tensor grad = side.host(gradient), out = side.host(output), sum = side.host(sums);
  const Tensor dq = at::zeros(all.query.sizes(), grad.options());
  const Tensor dk = at::zeros(all.key.sizes(), grad.options());
  const Tensor dv = at::zeros(all.value.sizes(), grad.options());
  const auto sum_heads = [&](const Tensor& repeated) {
    return repeated.unflatten(1, {all.key.size(1), -1}).sum(2);
  };
  for (std::int64_t i = 0; i < all.count() && !are_products_off(); ++i) {
    const Tensor own_sum = Segments::cut(sum.t(), all.query_places, i).t().unsqueeze(0);
    const auto [q, k, v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        all.queries_in(grad, i).contiguous(), all.queries_in(all.query, i),
        all.repeated_keys(all.key, i), all.repeated_keys(all.value, i), all.queries_in(out, i),
        own_sum.contiguous(), 0.0, all.is_plainly_causal(i), all.mask(i), scale);
    all.queries_in(dq, i).copy_(q);
    all.keys_in(dk, i).copy_(sum_heads(k));
    all.keys_in(dv, i).copy_(sum_heads(v));
  }
  return {side.device(dq), side.device(dk), side.device(dv)};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("_flash_attention_forward", TORCH_FN(forward_segments));
  library.impl("_flash_attention_backward", TORCH_FN(backward_segments));
}

}  // namespace simulated_cuda

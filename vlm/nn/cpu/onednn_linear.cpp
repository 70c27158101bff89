#include "vlm/nn/cpu/onednn_linear.h"

#include <ATen/Context.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>

namespace vlm {
namespace {

constexpr std::int64_t kLeastRows = 512;  // below, rearranging the weights costs what is won

// x, weight, bias, a function to apply to the result with its numbers and variant.
using LinearPointwise = at::Tensor(const at::Tensor&, const at::Tensor&,
                                   const std::optional<at::Tensor>&, std::string_view,
                                   c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);

// The operator that torch.compile uses for its own linear layers; absent from a LibTorch that was
// built without oneDNN.
const std::optional<c10::OperatorHandle>& find_operator() {
  static const std::optional<c10::OperatorHandle> found =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return found;
}

bool is_processor_suited() {
#if defined(__x86_64__)
  static const bool is_suited =
      __builtin_cpu_is("amd") != 0 && __builtin_cpu_supports("avx512f") != 0;
  return is_suited;
#else
  return false;
#endif
}

}  // namespace

bool prefers_onednn(const at::Tensor& x, std::int64_t rows) {
  return rows >= kLeastRows && x.is_cpu() && x.scalar_type() == at::kFloat &&
         is_processor_suited() && at::globalContext().userEnabledMkldnn() &&
         find_operator().has_value();
}

at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  static const auto op = find_operator().value().typed<LinearPointwise>();
  return op.call(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, "none",
                 c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace vlm

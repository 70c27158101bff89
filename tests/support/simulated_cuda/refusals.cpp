#include "tests/support/simulated_cuda/refusals.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/ForeachUtils.h>

#include <algorithm>
#include <set>

namespace simulated_cuda {
namespace {

// Operators of LibTorch 2.11 that have a kernel for CPUs and none for CUDA.
const std::set<std::string> kHostOnly = {"_add_relu",
                                         "_convert_weight_to_int4pack_for_cpu",
                                         "_dyn_quant_matmul_4bit",
                                         "_dyn_quant_pack_4bit_weight",
                                         "_empty_affine_quantized",
                                         "_empty_per_channel_affine_quantized",
                                         "_histogramdd_bin_edges",
                                         "_histogramdd_from_bin_cts",
                                         "_histogramdd_from_bin_tensors",
                                         "_scaled_dot_product_flash_attention_for_cpu",
                                         "_scaled_dot_product_flash_attention_for_cpu_backward",
                                         "_spdiags",
                                         "_weight_int4pack_mm_for_cpu",
                                         "from_file",
                                         "histogram",
                                         "mkldnn_rnn_layer",
                                         "mkldnn_rnn_layer_backward",
                                         "slow_conv3d_forward",
                                         "to_mkldnn"};

const std::set<std::string> kWaits = {"equal",
                                      "nonzero",
                                      "masked_select",
                                      "_unique",
                                      "_unique2",
                                      "unique_dim",
                                      "bincount",
                                      "is_nonzero",
                                      "unique_consecutive",
                                      "unique_dim_consecutive"};

const std::set<std::string> kProducts = {"addmm", "mm", "bmm", "baddbmm", "addmv", "dot", "addr"};

// Take index tensors of the host, which are uploaded.
const std::set<std::string> kIndexed = {"index", "_index_put_impl_"};

std::vector<at::Tensor> tensors_in(const c10::IValue& value) {
  if (value.isTensor()) return {value.toTensor()};
  if (value.isTensorList()) return value.toTensorVector();
  std::vector<at::Tensor> tensors;
  if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& one : value.toOptionalTensorVector()) {
      if (one) tensors.push_back(*one);
    }
  }
  return tensors;
}

bool is_fused(const Call& call) {
  return call.name.starts_with("_fused_ad") || call.name.starts_with("_fused_sgd");
}

void check_devices(const Call& call) {
  if (kIndexed.count(call.name) > 0) return;
  std::vector<at::Tensor> tensors;
  for (const c10::IValue& argument : call.arguments) {
    for (const at::Tensor& tensor : tensors_in(argument)) tensors.push_back(tensor);
  }
  check_one_device(tensors);
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK(!is_fused(call) || !tensor.defined() || tensor.is_cuda(),
                "params, grads, exp_avgs, exp_avg_sqs and state_steps must be on one GPU");
  }
}

// The lists of parameters, gradients and moments of a fused optimizer.
void check_fused_lists(const Call& call) {
  std::vector<std::vector<at::Tensor>> lists;
  for (const c10::IValue& argument : call.arguments) {
    if (argument.isTensorList()) lists.push_back(argument.toTensorVector());
  }
  const std::size_t moments = call.name.starts_with("_fused_sgd") ? 3 : 4;
  std::vector<at::TensorList> alike;
  for (std::size_t i = 0; i < std::min(moments, lists.size()); ++i) {
    if (!lists[i].empty()) alike.emplace_back(lists[i]);
  }
  TORCH_CHECK(alike.empty() || at::native::check_fast_path_restrictions(alike),
              "params, grads, exp_avgs, and exp_avg_sqs must have same dtype, device, and layout");
}

void check_types(const Call& call) {
  const std::vector<at::Tensor> first = tensors_in(call.arguments.at(0));
  if (first.empty() || !first[0].defined()) return;
  if (kProducts.count(call.name) > 0) {
    TORCH_CHECK_NOT_IMPLEMENTED(!at::isIntegralType(first[0].scalar_type(), true), "\"", call.name,
                                "_cuda\" not implemented for '", first[0].scalar_type(), "'");
  }
  if (call.name != "native_layer_norm") return;
  for (const std::size_t i : {2, 3}) {  // weight and bias
    for (const at::Tensor& tensor : tensors_in(call.arguments.at(i))) {
      TORCH_CHECK(!tensor.defined() || tensor.scalar_type() == first[0].scalar_type(),
                  "expected scalar type ", first[0].scalar_type(), " but found ",
                  tensor.scalar_type());
    }
  }
}

bool is_mask(const at::Tensor& index) {
  return index.defined() && (index.scalar_type() == at::kBool || index.scalar_type() == at::kByte);
}

}  // namespace

Call describe(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const c10::OperatorName& full = op.operator_name();
  const std::size_t colons = full.name.find("::");
  const auto count = static_cast<std::ptrdiff_t>(op.schema().arguments().size());
  return {full.name.substr(0, colons),
          full.name.substr(colons + 2),
          full.overload_name,
          {stack.end() - count, stack.end()}};
}

void check_one_device(const std::vector<at::Tensor>& tensors) {
  const at::Tensor* on_device = nullptr;
  const at::Tensor* on_host = nullptr;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    if (tensor.is_cuda()) on_device = &tensor;
    if (tensor.is_cpu() && tensor.dim() > 0) on_host = &tensor;
  }
  TORCH_CHECK(!on_device || !on_host,
              "Expected all tensors to be on the same device, but found at least two devices, "
              "cuda:0 and cpu!");
}

void refuse_what_cuda_refuses(const Call& call) {
  TORCH_CHECK_NOT_IMPLEMENTED(call.space == "aten" && kHostOnly.count(call.name) == 0,
                              "Could not run '", call.space, "::", call.text(),
                              "' with arguments from the 'CUDA' backend.");
  check_devices(call);
  if (is_fused(call)) check_fused_lists(call);
  if (!call.arguments.empty()) check_types(call);
}

bool makes_host_wait(const Call& call) {
  if (call.name == "repeat_interleave") return call.arguments.at(1).isNone();  // its output_size
  if (call.name == "_index_put_impl_") {
    const bool is_fill = call.arguments.at(2).toTensor().numel() == 1;
    const std::vector<at::Tensor> indices = tensors_in(call.arguments.at(1));
    return std::any_of(indices.begin(), indices.end(), [&](const at::Tensor& index) {
      return index.defined() && (index.is_cpu() || (is_mask(index) && !is_fill));
    });
  }
  return kWaits.count(call.name) > 0;
}

std::int64_t launches_of(const Call& call) {
  if (!call.name.starts_with("_foreach_")) return 1;
  std::vector<std::vector<at::Tensor>> lists;
  for (const c10::IValue& argument : call.arguments) {
    if (argument.isTensorList()) lists.push_back(argument.toTensorVector());
  }
  std::vector<at::TensorList> alike(lists.begin(), lists.end());
  if (lists.empty() || lists[0].empty() || at::native::check_fast_path_restrictions(alike))
    return 1;
  // A copy may change the type, of all alike.
  const auto is_alike = [](at::TensorList list) {
    return at::native::check_fast_path_restrictions({list});
  };
  if (call.name == "_foreach_copy_" && std::ranges::all_of(alike, is_alike) &&
      at::native::_check_tensors_share_sizes_and_strides(alike)) {
    return 1;
  }
  return static_cast<std::int64_t>(lists[0].size());
}

}  // namespace simulated_cuda

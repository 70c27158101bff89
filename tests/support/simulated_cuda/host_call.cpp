#include "tests/support/simulated_cuda/host_call.h"

#include <ATen/core/Generator.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <set>

#include "tests/support/simulated_cuda/copies.h"
#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/generator.h"
#include "tests/support/simulated_cuda/host_side.h"
#include "tests/support/simulated_cuda/refusals.h"

namespace simulated_cuda {
namespace {

// One kernel on CUDA, several operators where LibTorch has no kernel for a device: these go to the
// CPU's kernel as a whole. So does every _foreach_*.
constexpr const char* kWhole[] = {"addr",
                                  "all.dims",
                                  "any.dims",
                                  "convolution",
                                  "convolution_backward",
                                  "native_layer_norm",
                                  "native_group_norm",
                                  "silu_backward",
                                  "mish_backward",
                                  "_fused_rms_norm",
                                  "linalg__powsum",
                                  "_chunk_cat",
                                  "_grouped_mm",
                                  "split_with_sizes_copy.out"};

bool is_generator(const c10::Type& type) {
  if (type.kind() == c10::TypeKind::GeneratorType) return true;
  const auto* const optional = type.castRaw<c10::OptionalType>();
  return optional && optional->getElementType()->kind() == c10::TypeKind::GeneratorType;
}

template <class Convert>
c10::IValue convert_tensors(const c10::IValue& value, const Convert& convert) {
  if (value.isTensor()) return convert(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(convert(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor ? std::optional(convert(*tensor)) : std::nullopt);
    }
    return list;
  }
  return value;
}

c10::IValue to_host(const c10::IValue& value, const c10::Type& type, HostSide& side) {
  if (is_generator(type)) {
    return to_host_generator(value.isNone() ? std::nullopt : std::optional(value.toGenerator()));
  }
  if (value.isDevice())
    return value.toDevice().is_cuda() ? c10::Device(c10::kCPU) : value.toDevice();
  return convert_tensors(value, [&](const at::Tensor& tensor) { return side.host(tensor); });
}

// Copies of what lies on the host between device tensors: indices, masks.
void count_uploads_of_indices(const Call& call) {
  if (call.name != "_index_put_impl_") return;
  for (const std::optional<at::Tensor>& index : call.arguments.at(1).toOptionalTensorVector()) {
    if (index && index->defined() && index->is_cpu()) {
      count_upload(static_cast<std::int64_t>(index->nbytes()));
    }
  }
}

void tell(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const Call call = describe(op, stack);
  refuse_what_cuda_refuses(call);
  count_operator(call.text(), launches_of(call));
  count_uploads_of_indices(call);
  if (makes_host_wait(call)) wait_for_device();
}

}  // namespace

void call_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  tell(op, *stack);
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  const auto& arguments = op.schema().arguments();
  const std::size_t first = stack->size() - arguments.size();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    value = to_host(value, *arguments[i].type(), side);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  side.take_resized();
  for (std::size_t i = first; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    value = convert_tensors(value, [&](const at::Tensor& result) { return side.device(result); });
  }
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&call_on_host>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  std::set<std::string> names(std::begin(kWhole), std::end(kWhole));
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const bool is_out = name.overload_name.ends_with("out");
    if (!name.name.starts_with("aten::_foreach_") || is_out) continue;
    const std::string overload = name.overload_name.empty() ? "" : "." + name.overload_name;
    names.insert(name.name.substr(std::string("aten::").size()) + overload);
  }
  for (const std::string& name : names) {
    library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&call_on_host>());
  }
}

}  // namespace simulated_cuda

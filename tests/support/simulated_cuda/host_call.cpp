#include "tests/support/simulated_cuda/host_call.h"

#include <ATen/core/Generator.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "tests/support/simulated_cuda/copies.h"
#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/generator.h"
#include "tests/support/simulated_cuda/graph.h"
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

// Work that skip_products leaves out; results lie in their last argument.
constexpr const char* kSkipped[] = {"mm.out", "addmm.out", "bmm.out", "baddbmm.out"};

std::atomic<bool> are_products_skipped{false};

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

void for_each_tensor(const c10::IValue& value,
                     const std::function<void(const at::Tensor&)>& visit) {
  convert_tensors(value, [&](const at::Tensor& tensor) {
    if (tensor.defined()) visit(tensor);
    return tensor;
  });
}

bool is_product(const c10::OperatorHandle& op) {
  const std::string name = op.schema().name() + "." + op.schema().overload_name();
  return std::any_of(std::begin(kSkipped), std::end(kSkipped),
                     [&](const char* one) { return name == std::string("aten::") + one; });
}

// What a call may change, before it does so while this thread records.
void note_writes(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  if (!is_recording()) return;
  const auto& arguments = op.schema().arguments();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    TORCH_CHECK(!is_generator(*arguments[i].type()), op.schema().name(),
                ": random draws aren't simulated while recording");
    const c10::AliasInfo* alias = arguments[i].alias_info();
    if (!alias || !alias->isWrite()) continue;
    for_each_tensor(stack[stack.size() - arguments.size() + i], note_write);
  }
}

// Runs the CPU's kernel with the arguments on the stack, which it replaces by what it gives.
void call_kernel(const c10::OperatorHandle& op, torch::jit::Stack* stack, HostSide& side) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  const auto& arguments = op.schema().arguments();
  const std::size_t first = stack->size() - arguments.size();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    value = to_host(value, *arguments[i].type(), side);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  side.take_resized();
}

// Values whose tensors are on the device, as places.
class PlacedValues {
 public:
  explicit PlacedValues(torch::jit::Stack values) : values_(std::move(values)) {
    for (c10::IValue& value : values_) {
      value = convert_tensors(value, [&](const at::Tensor& tensor) {
        const bool is_there = tensor.defined() && tensor.is_cuda();
        places_.push_back(is_there ? std::optional(Place(tensor)) : std::nullopt);
        return is_there ? at::Tensor() : tensor;
      });
    }
  }

  torch::jit::Stack values() const {
    torch::jit::Stack values = values_;
    std::size_t next = 0;
    for (c10::IValue& value : values) {
      value = convert_tensors(value, [&](const at::Tensor& tensor) {
        const std::optional<Place>& place = places_[next++];
        return place ? place->tensor() : tensor;
      });
    }
    return values;
  }

 private:
  torch::jit::Stack values_;
  std::vector<std::optional<Place>> places_;
};

// The same call again; what it gives goes where it went when it was recorded.
void call_again(const c10::OperatorHandle& op, const PlacedValues& arguments,
                const PlacedValues& results) {
  torch::jit::Stack stack = arguments.values();
  HostSide side;
  call_kernel(op, &stack, side);
  const torch::jit::Stack targets = results.values();
  for (std::size_t i = 0; i < stack.size(); ++i) {
    std::vector<at::Tensor> to;
    for_each_tensor(targets[i], [&](const at::Tensor& tensor) { to.push_back(tensor); });
    std::size_t next = 0;
    for_each_tensor(stack[i], [&](const at::Tensor& result) {
      const at::Tensor& target = to.at(next++);
      if (side.is_of_argument(result) || result.numel() == 0) return;
      const at::AutoDispatchBelowADInplaceOrView no_autograd;
      HostSide of_target;
      of_target.host(target).copy_(result);
    });
  }
}

}  // namespace

void skip_products(bool is_on) {
  are_products_skipped = is_on;
}

bool are_products_off() {
  return are_products_skipped;
}

void call_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  tell(op, *stack);
  if (are_products_skipped && is_product(op)) {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    const at::Tensor out = stack->back().toTensor();
    HostSide of_result;
    of_result.host(out).zero_();
    torch::jit::drop(*stack, op.schema().arguments().size());
    return torch::jit::push(*stack, out);
  }
  note_writes(op, *stack);
  const std::size_t first = stack->size() - op.schema().arguments().size();
  torch::jit::Stack given;
  if (is_recording()) given.assign(stack->begin() + first, stack->end());
  HostSide side;
  call_kernel(op, stack, side);
  for (std::size_t i = first; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    value = convert_tensors(value, [&](const at::Tensor& result) { return side.device(result); });
  }
  if (!is_recording()) return;
  const PlacedValues arguments(std::move(given));  // in the shapes that the call gave them
  const PlacedValues results(torch::jit::Stack(stack->begin() + first, stack->end()));
  record([op, arguments, results] { call_again(op, arguments, results); });
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

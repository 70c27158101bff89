// Operators that no kernel of the CPU can do for a device: new memory, views, copies, dropout, and
// the backward pass of a fused norm.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include <array>
#include <cstring>
#include <limits>

#include "tests/support/simulated_cuda/copies.h"
#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/generator.h"
#include "tests/support/simulated_cuda/graph.h"
#include "tests/support/simulated_cuda/host_call.h"
#include "tests/support/simulated_cuda/host_side.h"
#include "tests/support/simulated_cuda/memory.h"
#include "tests/support/simulated_cuda/refusals.h"

namespace simulated_cuda {
namespace {

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

void check_index(const std::optional<at::Device>& device) {
  TORCH_CHECK(!device || device->index() <= 0, "CUDA error: invalid device ordinal ",
              static_cast<int>(device->index()));
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device,
                 std::optional<bool> is_pinned, std::optional<at::MemoryFormat> format) {
  check_index(device);
  TORCH_CHECK(!is_pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return at::Tensor(at::detail::empty_generic(size, device_allocator(), kKeys,
                                              c10::dtype_or_default(dtype), format));
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool> is_pinned) {
  check_index(device);
  TORCH_CHECK(!is_pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return empty_on_device(size, stride, c10::dtype_or_default(dtype));
}

// Makes the storage of a tensor at least that large; what it holds stays.
void grow_storage(const c10::Storage& storage, std::size_t size) {
  if (size <= storage.nbytes()) return;
  c10::DataPtr grown = device_allocator()->allocate(size);
  if (storage.nbytes() > 0) {
    std::memcpy(bytes_of(grown.get()), bytes_of(storage.data()), storage.nbytes());
  }
  storage.set_data_ptr_noswap(std::move(grown));
  storage.set_nbytes(size);
}

void grow_for_shape(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return;
  grow_storage(tensor.storage(),
               at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize(),
                                                static_cast<std::size_t>(tensor.storage_offset())));
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef size,
                         std::optional<at::MemoryFormat> format) {
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  if (format) self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  grow_for_shape(self);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, std::int64_t offset,
                        at::IntArrayRef size, at::IntArrayRef stride) {
  at::native::checkSetStorage(self, std::move(source), offset, size, stride);
  at::TensorImpl* const impl = self.unsafeGetTensorImpl();
  if (stride.data() != nullptr) {
    impl->set_sizes_and_strides(size, stride, offset);
  } else {
    impl->set_storage_offset(offset);
    impl->set_sizes_contiguous(size);
  }
  grow_for_shape(self);
  return self;
}

at::Tensor& set_empty(at::Tensor& self) {
  c10::Storage none(c10::Storage::use_byte_size_t(), 0, device_allocator(), /*resizable=*/true);
  return set_storage(self, std::move(none), 0, {0}, {});
}

void record_stream(at::Tensor&, at::Stream) {}

// In float32, as CUDA's kernel does it; the CPU's adds in the type of its argument. What sees
// nothing is 0.
at::Tensor masked_softmax_on_host(const at::Tensor& scores, const at::Tensor& mask) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  const at::Tensor seen =
      side.host(scores)
          .to(at::kFloat)
          .masked_fill(side.host(mask), -std::numeric_limits<float>::infinity());
  return seen.softmax(-1).nan_to_num(0).to(scores.scalar_type()).contiguous();
}

at::Tensor masked_softmax(const at::Tensor& scores, const at::Tensor& mask,
                          std::optional<std::int64_t> dim, std::optional<std::int64_t>) {
  TORCH_CHECK(mask.scalar_type() == at::kBool, "Mask should be a boolean tensor");
  TORCH_CHECK(mask.sizes() == scores.sizes(), "Mask shape should match input");
  TORCH_CHECK(!dim || *dim == -1 || *dim == scores.dim() - 1, "not simulated");
  check_one_device({scores, mask});
  count_operator("_masked_softmax");
  at::Tensor result = at::empty(scores.sizes(), scores.options());
  const auto compute = [](const at::Tensor& from, const at::Tensor& hidden, const at::Tensor& to) {
    const at::Tensor values = masked_softmax_on_host(from, hidden);
    std::memcpy(bytes_of(to.mutable_data_ptr()), values.const_data_ptr(), values.nbytes());
  };
  compute(scores, mask, result);
  if (is_recording()) {
    record([compute, a = Place(scores), b = Place(mask), to = Place(result)] {
      compute(a.tensor(), b.tensor(), to.tensor());
    });
  }
  return result;
}

// A product whose result is wider than its factors.
at::Tensor mm_wide(const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype) {
  const bool is_half = a.scalar_type() == at::kHalf || a.scalar_type() == at::kBFloat16;
  TORCH_CHECK(a.scalar_type() == b.scalar_type(), "input dtypes must be the same");
  TORCH_CHECK(dtype == a.scalar_type() || (dtype == at::kFloat && is_half),
              "out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs");
  check_one_device({a, b});
  refuse_while_recording("mm.dtype, which isn't simulated there");
  count_operator("mm.dtype");
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  if (are_products_off()) return at::zeros({a.size(0), b.size(1)}, a.options().dtype(dtype));
  HostSide side;
  return side.device(side.host(a).to(dtype).mm(side.host(b).to(dtype)));
}

std::tuple<at::Tensor, at::Tensor> dropout(const at::Tensor& input, double p,
                                           std::optional<bool> is_training) {
  refuse_while_recording("native_dropout, which isn't simulated there");
  count_operator("native_dropout");
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  const at::Tensor x = side.host(input);
  const bool drops = is_training.value_or(true) && p > 0;
  const double kept = drops ? 1 - p : 1;
  at::Tensor mask = at::empty_like(x, x.options().dtype(at::kBool));
  mask.bernoulli_(kept, to_host_generator(std::nullopt));
  const at::Tensor y = x.mul(mask).mul_(kept > 0 ? 1 / kept : 0);
  return {side.device(y), side.device(mask)};
}

// y = x · rstd · weight over the last dimensions.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(
    const at::Tensor& grad_out, const at::Tensor& input, at::IntArrayRef normalized,
    const at::Tensor& rstd, const std::optional<at::Tensor>& weight, std::array<bool, 2> wanted) {
  const bool has_weight = weight && weight->defined();
  check_one_device({grad_out, input, rstd, has_weight ? *weight : at::Tensor()});
  count_operator("_fused_rms_norm_backward");
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  const auto inner = static_cast<std::int64_t>(normalized.size());
  std::vector<std::int64_t> last, first;
  for (std::int64_t i = 0; i < input.dim(); ++i)
    (i < input.dim() - inner ? first : last).push_back(i);
  const at::Tensor unit = side.host(input).to(at::kFloat) * side.host(rstd);
  const at::Tensor grad = side.host(grad_out).to(at::kFloat);
  const at::Tensor scaled = has_weight ? grad * side.host(*weight).to(at::kFloat) : grad;
  const at::Tensor dx =
      (scaled - unit * (scaled * unit).mean(last, /*keepdim=*/true)) * side.host(rstd);
  at::Tensor dw;
  if (wanted[1] && has_weight) {
    dw = (first.empty() ? grad * unit : (grad * unit).sum(first)).to(weight->scalar_type());
  }
  return {wanted[0] ? side.device(dx.to(input.scalar_type())) : at::Tensor(), side.device(dw)};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("resize_", TORCH_FN(resize));
  library.impl("set_.source_Storage",
               TORCH_FN(static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(at::native::set_)));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  library.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  library.impl("set_", TORCH_FN(set_empty));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("unfold", TORCH_FN(at::native::unfold));
  library.impl("copy_", TORCH_FN(copy));
  library.impl("_local_scalar_dense", TORCH_FN(read_value));
  library.impl("record_stream", TORCH_FN(record_stream));
  library.impl("mm.dtype", TORCH_FN(mm_wide));
  library.impl("_masked_softmax", TORCH_FN(masked_softmax));
  library.impl("native_dropout", TORCH_FN(dropout));
  library.impl("_fused_rms_norm_backward", TORCH_FN(rms_norm_backward));
}

}  // namespace simulated_cuda

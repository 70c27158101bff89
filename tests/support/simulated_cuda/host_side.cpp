#include "tests/support/simulated_cuda/host_side.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>

#include "tests/support/simulated_cuda/memory.h"

namespace simulated_cuda {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

// A tensor of the same shape over another storage.
at::Tensor over(const c10::Storage& storage, const at::Tensor& shape, DispatchKey key) {
  auto impl = c10::make_intrusive<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(storage),
                                                   DispatchKeySet(key), shape.dtype());
  impl->set_sizes_and_strides(shape.sizes(), shape.strides(), shape.storage_offset());
  if (shape.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return at::Tensor(std::move(impl));
}

std::size_t bytes_in(const at::Tensor& tensor) {
  return at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize());
}

}  // namespace

at::Tensor empty_on_device(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  return at::Tensor(at::detail::empty_strided_generic(sizes, strides, device_allocator(),
                                                      DispatchKeySet(DispatchKey::CUDA), dtype));
}

at::Tensor HostSide::host(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  const auto [found, is_new] =
      by_original_.try_emplace(tensor.unsafeGetTensorImpl(), tensors_.size());
  if (!is_new) return tensors_[found->second].alias;
  const at::Tensor alias = over(alias_of(tensor.storage()), tensor, DispatchKey::CPU);
  by_alias_[alias.unsafeGetTensorImpl()] = tensors_.size();
  tensors_.push_back({tensor, alias});
  return alias;
}

c10::Storage HostSide::alias_of(const c10::Storage& storage) {
  const auto [found, is_new] =
      by_storage_.try_emplace(storage.unsafeGetStorageImpl(), storages_.size());
  if (!is_new) return storages_[found->second].alias;
  c10::DataPtr bytes(bytes_of(storage.data()), c10::Device(c10::kCPU));
  c10::Storage alias(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(bytes),
                     c10::GetCPUAllocator(), /*resizable=*/true);
  by_host_storage_[alias.unsafeGetStorageImpl()] = storages_.size();
  storages_.push_back({storage, alias});
  return alias;
}

at::Tensor HostSide::device(const at::Tensor& result) {
  if (!result.defined()) return result;
  const auto own = by_alias_.find(result.unsafeGetTensorImpl());
  if (own != by_alias_.end()) return tensors_[own->second].original;
  TORCH_CHECK(result.layout() == at::kStrided, "the simulated GPU has dense tensors only");
  const auto shared = by_host_storage_.find(result.storage().unsafeGetStorageImpl());
  if (shared != by_host_storage_.end()) {
    return over(storages_[shared->second].original, result, DispatchKey::CUDA);
  }
  const at::Tensor made = empty_on_device(result.sizes(), result.strides(), result.scalar_type());
  if (result.numel() > 0) {
    std::memcpy(bytes_of(made.mutable_data_ptr()), result.const_data_ptr(), bytes_in(result));
  }
  return made;
}

bool HostSide::is_of_argument(const at::Tensor& result) const {
  return by_host_storage_.count(result.storage().unsafeGetStorageImpl()) > 0;
}

void HostSide::take_memory(const SharedMemory& memory) {
  const std::size_t size = memory.alias.nbytes();
  if (memory.alias.data() == bytes_of(memory.original.data()) && size == memory.original.nbytes()) {
    return;
  }
  c10::DataPtr grown = device_allocator()->allocate(size);
  if (size > 0) std::memcpy(bytes_of(grown.get()), memory.alias.data(), size);
  memory.original.set_data_ptr_noswap(std::move(grown));
  memory.original.set_nbytes(size);
}

void HostSide::take_resized() {
  for (const SharedMemory& memory : storages_) take_memory(memory);
  for (const Pair& pair : tensors_) {
    TORCH_CHECK(by_host_storage_.count(pair.alias.storage().unsafeGetStorageImpl()) > 0,
                "a kernel replaced the memory of an argument: not simulated");
    if (pair.alias.sizes() == pair.original.sizes() &&
        pair.alias.strides() == pair.original.strides() &&
        pair.alias.storage_offset() == pair.original.storage_offset()) {
      continue;
    }
    pair.original.unsafeGetTensorImpl()->set_sizes_and_strides(
        pair.alias.sizes(), pair.alias.strides(), pair.alias.storage_offset());
  }
}

}  // namespace simulated_cuda

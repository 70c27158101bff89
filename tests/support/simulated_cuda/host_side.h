// Host tensors over the bytes of device tensors, for one call of a kernel of the CPU.
//
// They are aliases, no copies: same offsets, strides and overlaps, and what shares memory on the
// device shares it on the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>
#include <vector>

namespace simulated_cuda {

// New device tensor.
at::Tensor empty_on_device(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype);

class HostSide {
 public:
  // The alias of a device tensor; other tensors, and undefined ones, as they are.
  at::Tensor host(const at::Tensor& tensor);

  // The device tensor for what a kernel gave: the argument that it is, or a view of an argument's
  // memory, or a new tensor with its values.
  at::Tensor device(const at::Tensor& result);

  // Whether what a kernel gave is an argument, or a view of one's memory.
  bool is_of_argument(const at::Tensor& result) const;

  // After a call: arguments that the kernel has resized take their new shape and memory.
  void take_resized();

 private:
  struct Pair {
    at::Tensor original, alias;
  };
  struct SharedMemory {
    c10::Storage original, alias;
  };
  c10::Storage alias_of(const c10::Storage& storage);
  void take_memory(const SharedMemory& memory);

  std::vector<Pair> tensors_;
  std::vector<SharedMemory> storages_;
  std::unordered_map<const void*, std::size_t> by_original_, by_alias_;        // of tensors
  std::unordered_map<const void*, std::size_t> by_storage_, by_host_storage_;  // of storages
};

}  // namespace simulated_cuda

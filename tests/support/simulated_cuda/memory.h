// Device memory and pinned host memory.
//
// Two ranges of addresses lie at a constant distance. Device tensors point into the first, which
// can't be accessed, ever and by any thread; their bytes lie in the second. Nothing is switched
// around a call, so an access is caught while operators run, too.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>

namespace simulated_cuda {

c10::DeviceAllocator* device_allocator();
c10::Allocator* pinned_allocator();

bool is_device_address(const void* address);
bool is_pinned_address(const void* address);

// Where the bytes of a device address lie; nothing for nothing.
std::byte* bytes_of(const void* device_address);

}  // namespace simulated_cuda

// Device memory and pinned host memory.
//
// Two ranges of addresses lie at a constant distance. Device tensors point into the first, which
// can't be accessed, ever and by any thread; their bytes lie in the second. Nothing is switched
// around a call, so an access is caught while operators run, too.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>
#include <cstdint>

namespace simulated_cuda {

c10::DeviceAllocator* device_allocator();
c10::Allocator* pinned_allocator();

bool is_device_address(const void* address);
bool is_pinned_address(const void* address);

// Where the bytes of a device address lie; nothing for nothing.
std::byte* bytes_of(const void* device_address);

// Pools, for recordings: memory that is taken while the thread takes from a pool is used again only
// by that pool, until it is released. 0: none.
std::uint64_t new_pool();
void take_from_pool(std::uint64_t pool);
void release_pool(std::uint64_t pool);
// Fills all of a pool's memory as new memory is filled.
void spoil_pool(std::uint64_t pool);
// Of the block that begins there. Serials differ between any two allocations; 0: none is there.
std::uint64_t serial_of(const void* device_address);
std::uint64_t pool_of(const void* device_address);

}  // namespace simulated_cuda

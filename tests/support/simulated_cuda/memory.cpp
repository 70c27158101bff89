#include "tests/support/simulated_cuda/memory.h"

#include <c10/core/Device.h>
#include <sys/mman.h>

#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tests/support/simulated_cuda/copies.h"
#include "tests/support/simulated_cuda/simulated_cuda.h"

namespace simulated_cuda {
namespace {

constexpr std::size_t kWindow = std::size_t{256} << 30;
constexpr std::size_t kBlock = 512;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kLarge = std::size_t{4} << 20;  // blocks whose pages go back when freed
const c10::Device kDevice(c10::kCUDA, 0);

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

// Bytes that a block of `size` takes of the window: few kinds, so that freed ones fit again.
std::size_t to_capacity(std::size_t size) {
  return size <= kPage ? size : round_up(size, std::bit_floor(size) / 8);
}

thread_local std::uint64_t current_pool = 0;

// The device window; the byte window follows it.
std::byte* reserve_windows() {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const begin = ::mmap(nullptr, 2 * kWindow, PROT_NONE, flags, -1, 0);
  TORCH_CHECK(begin != MAP_FAILED, "no addresses for the simulated GPU");
  std::byte* const device = static_cast<std::byte*>(begin);
  void* const bytes =
      ::mmap(device + kWindow, kWindow, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0);
  TORCH_CHECK(bytes != MAP_FAILED, "no addresses for the simulated GPU's bytes");
  return device;
}

std::byte* window() {
  static std::byte* const begin = reserve_windows();
  return begin;
}

class Memory final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t size) override {
    if (size == 0) return {nullptr, kDevice};
    void* const block = take(size);
    return {block, block, &Memory::release, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Memory::release; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    std::memcpy(bytes_of(to), bytes_of(from), size);
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex_);
    for (auto* stat : all_stats()) (*stat)[0].reset_accumulated();
  }
  void resetPeakStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex_);
    for (auto* stat : all_stats()) (*stat)[0].reset_peak();
  }
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex_);
    const std::size_t held = held_bytes();
    return {limit_ > held ? limit_ - held : 0, limit_};
  }

  void set_limit(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }
  void set_fill(bool is_on) {
    const std::lock_guard lock(mutex_);
    is_filled_ = is_on;
  }
  void release_pool(std::uint64_t pool) {
    const std::lock_guard lock(mutex_);
    for (auto& [capacity, blocks] : pools_[pool]) {
      auto& free = free_[capacity];
      free.insert(free.end(), blocks.begin(), blocks.end());
    }
    pools_.erase(pool);
    for (auto& [block, used] : used_) {
      if (used.pool == pool) used.pool = 0;
    }
  }
  void spoil_pool(std::uint64_t pool) {
    const std::lock_guard lock(mutex_);
    if (!is_filled_) return;
    for (const auto& [capacity, blocks] : pools_[pool]) {
      for (void* block : blocks) std::memset(bytes_of(block), 0xFF, capacity);
    }
    for (const auto& [block, used] : used_) {
      if (used.pool == pool) std::memset(bytes_of(block), 0xFF, used.counted);
    }
  }
  std::pair<std::uint64_t, std::uint64_t> serial_and_pool(const void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(const_cast<void*>(block));
    if (found == used_.end()) return {0, 0};
    return {found->second.serial, found->second.pool};
  }
  std::int64_t peak() {
    const std::lock_guard lock(mutex_);
    return stats_.allocated_bytes[0].peak;
  }
  std::int64_t current() {
    const std::lock_guard lock(mutex_);
    return stats_.allocated_bytes[0].current;
  }

 private:
  struct Used {
    std::size_t counted;
    std::uint64_t serial, pool;
  };
  using Free = std::map<std::size_t, std::vector<void*>>;  // by capacity

  static void release(void* block);

  std::vector<c10::CachingAllocator::StatArray*> all_stats() {
    return {&stats_.allocation, &stats_.allocated_bytes, &stats_.reserved_bytes,
            &stats_.active_bytes, &stats_.requested_bytes};
  }
  std::size_t held_bytes() const {
    return static_cast<std::size_t>(stats_.allocated_bytes[0].current);
  }

  void* take(std::size_t size) {
    const std::size_t counted = round_up(size, kBlock);
    void* block = nullptr;
    bool is_filled = false;
    {
      const std::lock_guard lock(mutex_);
      check_room(size, counted);
      block = find_block(to_capacity(counted));
      used_[block] = {counted, ++last_serial_, current_pool};
      is_filled = is_filled_;
      stats_.allocation[0].increase(1);
      for (auto* stat : all_stats()) {
        if (stat != &stats_.allocation) (*stat)[0].increase(counted);
      }
    }
    if (is_filled) std::memset(bytes_of(block), 0xFF, counted);
    report(block, static_cast<std::int64_t>(counted));
    return block;
  }

  void check_room(std::size_t size, std::size_t counted) {
    if (held_bytes() + counted <= limit_) return;
    ++stats_.num_ooms;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ",
                     static_cast<double>(size) / (1 << 20), " MiB. GPU 0 has a total capacity of ",
                     static_cast<double>(limit_) / (1 << 20), " MiB of which ",
                     static_cast<double>(limit_ - std::min(limit_, held_bytes())) / (1 << 20),
                     " MiB is free.");
  }

  void* find_block(std::size_t capacity) {
    auto& free = (current_pool == 0 ? free_ : pools_[current_pool])[capacity];
    if (!free.empty()) {
      void* const block = free.back();
      free.pop_back();
      return block;
    }
    if (capacity >= kLarge) next_ = round_up(next_, kPage);
    TORCH_CHECK(next_ + capacity <= kWindow, "the simulated GPU is out of addresses");
    void* const block = window() + next_;
    next_ += capacity;
    return block;
  }

  void give(void* block) {
    std::size_t counted = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto found = used_.find(block);
      TORCH_INTERNAL_ASSERT(found != used_.end(), "freed twice on the simulated GPU");
      counted = found->second.counted;
      const std::uint64_t pool = found->second.pool;
      used_.erase(found);
      const std::size_t capacity = to_capacity(counted);
      if (capacity >= kLarge) ::madvise(bytes_of(block), capacity, MADV_DONTNEED);
      (pool == 0 ? free_ : pools_[pool])[capacity].push_back(block);
      stats_.allocation[0].decrease(1);
      for (auto* stat : all_stats()) {
        if (stat != &stats_.allocation) (*stat)[0].decrease(counted);
      }
    }
    report(block, -static_cast<std::int64_t>(counted));
  }

  // Meters that listen to LibTorch's allocators hear of this one too.
  void report(void* block, std::int64_t change) {
    const auto held = static_cast<std::size_t>(current());
    c10::reportMemoryUsageToProfiler(block, change, held, held, kDevice);
  }

  std::mutex mutex_;
  std::size_t next_ = 0;  // offset of what was never used
  std::size_t limit_ = kCapacity;
  bool is_filled_ = true;
  std::uint64_t last_serial_ = 0;
  std::unordered_map<void*, Used> used_;
  Free free_;
  std::map<std::uint64_t, Free> pools_;
  c10::CachingDeviceAllocator::DeviceStats stats_;
};

// Never destroyed: tensors may outlive it.
Memory& memory() {
  static auto* const all = new Memory;
  return *all;
}

void Memory::release(void* block) {
  if (block != nullptr) memory().give(block);
}

class PinnedMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t size) override {
    if (size == 0) return {nullptr, c10::Device(c10::kCPU)};
    void* const block = std::aligned_alloc(kBlock, round_up(size, kBlock));
    TORCH_CHECK(block != nullptr, "no memory for ", size, " pinned bytes");
    const std::lock_guard lock(mutex_);
    blocks_[static_cast<std::byte*>(block)] = size;
    return {block, block, &PinnedMemory::release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &PinnedMemory::release; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    std::memcpy(to, from, size);
  }

  bool has(const void* address) {
    const std::lock_guard lock(mutex_);
    auto next = blocks_.upper_bound(static_cast<std::byte*>(const_cast<void*>(address)));
    if (next == blocks_.begin()) return false;
    --next;
    return address < next->first + next->second;
  }

 private:
  static void release(void* block);

  std::mutex mutex_;
  std::map<std::byte*, std::size_t> blocks_;
};

PinnedMemory& pinned_memory() {
  static auto* const all = new PinnedMemory;
  return *all;
}

void PinnedMemory::release(void* block) {
  if (block == nullptr) return;
  PinnedMemory& all = pinned_memory();
  std::size_t size = 0;
  {
    const std::lock_guard lock(all.mutex_);
    const auto found = all.blocks_.find(static_cast<std::byte*>(block));
    size = found->second;
    all.blocks_.erase(found);
  }
  end_copies_of(block, size);
  std::free(block);
}

struct Registration {
  Registration() { c10::SetAllocator(c10::kCUDA, &memory()); }
};
const Registration registration;

}  // namespace

c10::DeviceAllocator* device_allocator() {
  return &memory();
}

c10::Allocator* pinned_allocator() {
  return &pinned_memory();
}

bool is_device_address(const void* address) {
  const auto* const byte = static_cast<const std::byte*>(address);
  return byte >= window() && byte < window() + kWindow;
}

bool is_pinned_address(const void* address) {
  return pinned_memory().has(address);
}

std::byte* bytes_of(const void* device_address) {
  if (device_address == nullptr) return nullptr;
  TORCH_INTERNAL_ASSERT(is_device_address(device_address), "no address of the simulated GPU");
  return static_cast<std::byte*>(const_cast<void*>(device_address)) + kWindow;
}

std::uint64_t new_pool() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

void take_from_pool(std::uint64_t pool) {
  current_pool = pool;
}

void release_pool(std::uint64_t pool) {
  memory().release_pool(pool);
}

void spoil_pool(std::uint64_t pool) {
  memory().spoil_pool(pool);
}

std::uint64_t serial_of(const void* device_address) {
  return memory().serial_and_pool(device_address).first;
}

std::uint64_t pool_of(const void* device_address) {
  return memory().serial_and_pool(device_address).second;
}

std::int64_t current_bytes() {
  return memory().current();
}

std::int64_t peak_bytes() {
  return memory().peak();
}

void reset_peak() {
  memory().resetPeakStats(0);
}

void limit_bytes(std::int64_t bytes) {
  memory().set_limit(static_cast<std::size_t>(bytes));
}

void fill_new_memory(bool is_on) {
  memory().set_fill(is_on);
}

}  // namespace simulated_cuda

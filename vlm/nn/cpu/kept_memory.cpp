#include "vlm/nn/cpu/kept_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <tuple>

namespace vlm {
namespace {

constexpr std::size_t kSmallestPooled = 128 << 10;
constexpr std::size_t kGranule = 64 << 10;
constexpr std::uintptr_t kPage = 4096;

std::size_t rounded(std::size_t bytes) {
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

void* map_memory(std::size_t bytes) {
  void* address =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  ::madvise(address, bytes, MADV_HUGEPAGE);  // where it fails, the pages are small
  return address;
}

// Never destroyed: tensors may live longer than static objects.
BlockPool& pool() {
  static BlockPool& pool = *new BlockPool;
  return pool;
}

bool is_page(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % kPage == 0;
}

void free_tensor(void* address) {
  // Blocks of the pool begin with a page, what LibTorch allocates hardly ever: no need to ask.
  if (!is_page(address) || !pool().give_back(address)) {
    return c10::GetDefaultCPUAllocator()->raw_deleter()(address);
  }
  c10::profiledCPUMemoryReporter().Delete(address);
}

class KeepingAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* address = bytes >= kSmallestPooled ? pool().take(bytes) : nullptr;
    if (address) {
      c10::profiledCPUMemoryReporter().New(address, bytes);
    } else {  // also where memory has run out: its error says how much was asked for
      address = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
    }
    return {address, address, &free_tensor, c10::DeviceType::CPU};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_tensor; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

BlockPool::~BlockPool() {
  while (!kept_.empty()) release_oldest();
}

void* BlockPool::take(std::size_t bytes) {
  const std::scoped_lock lock(mutex_);
  auto [address, size] = find_kept(bytes);
  if (!address) std::tie(address, size) = map_new(rounded(bytes));
  if (!address) return nullptr;
  used_.emplace(address, size);
  used_bytes_ += size;
  most_bytes_ = std::max(most_bytes_, used_bytes_);
  return address;
}

bool BlockPool::give_back(void* address) {
  const std::scoped_lock lock(mutex_);
  const auto found = used_.find(address);
  if (found == used_.end()) return false;
  kept_.emplace(found->second, Kept{address, ++turn_});
  used_bytes_ -= found->second;
  kept_bytes_ += found->second;
  used_.erase(found);
  return true;
}

std::size_t BlockPool::used_bytes() const {
  const std::scoped_lock lock(mutex_);
  return used_bytes_;
}

std::size_t BlockPool::kept_bytes() const {
  const std::scoped_lock lock(mutex_);
  return kept_bytes_;
}

// The smallest that is large enough, if it isn't much too large: batches differ a little in length.
std::pair<void*, std::size_t> BlockPool::find_kept(std::size_t bytes) {
  const auto found = kept_.lower_bound(bytes);
  if (found == kept_.end() || found->first > rounded(bytes) + bytes / 8) return {};
  const std::pair<void*, std::size_t> block{found->second.address, found->first};
  kept_bytes_ -= block.second;
  kept_.erase(found);
  return block;
}

std::pair<void*, std::size_t> BlockPool::map_new(std::size_t bytes) {
  const std::size_t most = std::max(most_bytes_, used_bytes_ + bytes);
  while (!kept_.empty() && used_bytes_ + kept_bytes_ + bytes > most) release_oldest();
  void* address = map_memory(bytes);
  while (!address && !kept_.empty()) {
    release_oldest();
    address = map_memory(bytes);
  }
  return {address, address ? bytes : 0};
}

void BlockPool::release_oldest() {
  const auto oldest =
      std::min_element(kept_.begin(), kept_.end(),
                       [](const auto& a, const auto& b) { return a.second.turn < b.second.turn; });
  ::munmap(oldest->second.address, oldest->first);
  kept_bytes_ -= oldest->first;
  kept_.erase(oldest);
}

void keep_freed_memory() {
  static KeepingAllocator allocator;
  c10::SetCPUAllocator(&allocator);
}

}  // namespace vlm

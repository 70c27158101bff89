// Memory of CPU tensors that is kept when they are freed, and used again by the next of about their
// size. For training small models.
//
//   tensor of 128 kB and more ⇄ BlockPool ⇄ system; smaller ones as LibTorch does it
//
// A step frees and takes the same sizes over and over. Given back to the system, every tensor
// begins with fresh pages, which the kernel has to clear: half the time of a step of a small model.
// Kept without a bound, they would add to the peak. So the pool never holds more than tensors once
// took at the same time: before it asks for new memory, it gives back what was unused for longest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace vlm {

// May be used by several threads.
class BlockPool {
 public:
  BlockPool() = default;
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Memory for at least `bytes`, its contents arbitrary; null where there is none.
  void* take(std::size_t bytes);
  // False: it isn't from this pool.
  bool give_back(void* address);

  std::size_t used_bytes() const;
  std::size_t kept_bytes() const;  // free ones

 private:
  struct Kept {
    void* address = nullptr;
    std::uint64_t turn = 0;  // when it was given back
  };

  // Takes a kept block or maps a new one; {null, 0} where there is no memory.
  std::pair<void*, std::size_t> find_kept(std::size_t bytes);
  std::pair<void*, std::size_t> map_new(std::size_t bytes);
  void release_oldest();

  mutable std::mutex mutex_;
  std::multimap<std::size_t, Kept> kept_;        // by size
  std::unordered_map<void*, std::size_t> used_;  // sizes
  std::size_t used_bytes_ = 0, kept_bytes_ = 0, most_bytes_ = 0;
  std::uint64_t turn_ = 0;
};

// Has all CPU tensors of the process take their memory from one pool from now on.
void keep_freed_memory();

}  // namespace vlm

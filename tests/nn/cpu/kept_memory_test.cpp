// Freed memory of tensors is used again and never adds to the peak.
#include "vlm/nn/cpu/kept_memory.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <vector>

#include "tests/support/catch.h"

namespace vlm {
namespace {

constexpr std::size_t kMegabyte = 1 << 20;

TEST_CASE("memory that was given back serves the next of about its size") {
  BlockPool pool;
  void* first = pool.take(8 * kMegabyte);
  CHECK(reinterpret_cast<std::uintptr_t>(first) % 4096 == 0);
  CHECK(pool.give_back(first));
  CHECK_FALSE(pool.give_back(first));
  CHECK(pool.used_bytes() == 0);
  CHECK(pool.kept_bytes() == 8 * kMegabyte);
  void* shorter = pool.take(8 * kMegabyte - kMegabyte / 2);
  CHECK(shorter == first);
  CHECK(pool.used_bytes() == 8 * kMegabyte);
  CHECK(pool.kept_bytes() == 0);
  pool.give_back(shorter);
  void* half = pool.take(4 * kMegabyte);  // half of what is kept would be wasted
  CHECK(pool.used_bytes() == 4 * kMegabyte);
  CHECK(pool.kept_bytes() == 0);  // both together are more than was ever used
  pool.give_back(half);
}

TEST_CASE("kept memory is given up, oldest first, before more is held than was used at once") {
  BlockPool pool;
  std::vector<void*> used;
  for (const std::size_t size : {2, 3, 4}) used.push_back(pool.take(size * kMegabyte));
  CHECK(pool.used_bytes() == 9 * kMegabyte);
  for (void* block : used) pool.give_back(block);
  CHECK(pool.kept_bytes() == 9 * kMegabyte);
  void* large = pool.take(5 * kMegabyte);  // 4 MB may stay
  CHECK(pool.used_bytes() == 5 * kMegabyte);
  CHECK(pool.kept_bytes() == 4 * kMegabyte);
  CHECK(pool.take(4 * kMegabyte) == used[2]);
  std::memset(large, 1, 5 * kMegabyte);
  pool.give_back(large);
  pool.give_back(used[2]);
}

TEST_CASE("tensors from kept memory hold what is put into them") {
  keep_freed_memory();
  const void* address = nullptr;
  {
    const at::Tensor first = at::arange(1'000'000, at::kFloat);
    address = first.data_ptr();
    CHECK(first[999'999].item<float>() == 999'999);
  }
  at::Tensor second = at::empty({1'000'000}, at::kFloat);
  CHECK(second.data_ptr() == address);
  second.fill_(3);
  const at::Tensor copy = second.clone();
  second.resize_({2'000'000});
  CHECK(second.narrow(0, 0, 1'000'000).equal(copy));
}

TEST_CASE("memory for libraries comes from the same pool, and small tensors don't") {
  keep_freed_memory();
  c10::Allocator& allocator = *c10::GetCPUAllocator();
  for (const std::size_t bytes : {std::size_t{100}, std::size_t{kMegabyte}}) {
    void* memory = allocator.raw_allocate(bytes);
    std::memset(memory, 7, bytes);
    allocator.raw_deallocate(memory);
    const at::Tensor tensor = at::empty({static_cast<std::int64_t>(bytes)}, at::kByte);
    CHECK((tensor.data_ptr() == memory) == (bytes == kMegabyte));
  }
}

TEST_CASE("more memory than there is, is LibTorch's error") {
  keep_freed_memory();
  CHECK_THROWS_WITH(at::empty({std::int64_t{1} << 60}, at::kByte),
                    Contains("can't allocate memory"));
}

}  // namespace
}  // namespace vlm

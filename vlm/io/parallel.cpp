#include "vlm/io/parallel.h"

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>

namespace vlm {

void run_pieces(std::int64_t count, const std::function<void(std::int64_t)>& work) {
  const std::int64_t threads = std::min<std::int64_t>(at::get_num_threads(), count);
  std::atomic<std::int64_t> next = 0;
  const auto run_next_pieces = [&] {
    for (std::int64_t i = next++; i < count; i = next++) work(i);
  };
  if (threads < 2 || at::in_parallel_region()) return run_next_pieces();
  // One element a thread; what the elements hold doesn't matter.
  const at::Tensor seats = at::empty({threads}, at::kByte);
  at::TensorIterator iterator = at::TensorIterator::nullary_op(const_cast<at::Tensor&>(seats));
  iterator.for_each([&](char**, const std::int64_t*, std::int64_t) { run_next_pieces(); },
                    /*grain_size=*/1);
}

void use_one_thread() {
  at::get_num_threads();  // the first call in a thread sets its number; later ones leave it
  // LibTorch's own OpenMP, which this program isn't linked with.
  using Set = void (*)(int);
  static const auto set = reinterpret_cast<Set>(::dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  if (set) set(1);
}

}  // namespace vlm

// Pieces of work on LibTorch's threads, and threads that keep to one.
#include "vlm/io/parallel.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/io/tensor_digest.h"

namespace vlm {
namespace {

struct ThreadsGuard {
  explicit ThreadsGuard(int threads) { at::set_num_threads(threads); }
  ~ThreadsGuard() { at::set_num_threads(before); }
  int before = at::get_num_threads();
};

TEST_CASE("pieces are done once each, by as many threads as there are") {
  const ThreadsGuard guard(3);
  std::vector<std::atomic<int>> done(50);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  run_pieces(50, [&](std::int64_t i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++done[static_cast<std::size_t>(i)];
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  for (const auto& count : done) CHECK(count == 1);
  CHECK(threads.size() == 3);
  CHECK_THROWS_WITH(run_pieces(9,
                               [](std::int64_t i) {
                                 if (i == 4) throw Error({.what = "piece four"});
                               }),
                    "piece four");
}

TEST_CASE("a thread that keeps to one leaves the others their number") {
  const ThreadsGuard guard(3);
  int inside = 0, also_inside = 0;
  std::thread([&] {
    use_one_thread();
    inside = at::get_num_threads();
    at::ones({1 << 20}).sum();
    also_inside = at::get_num_threads();
  }).join();
  CHECK(inside == 1);
  CHECK(also_inside == 1);
  CHECK(at::get_num_threads() == 3);
  std::thread([] { CHECK(at::get_num_threads() == 3); }).join();
}

TEST_CASE("digests are the same on any number of threads") {
  NamedTensors tensors;
  for (int i = 0; i < 20; ++i) tensors.emplace_back(std::to_string(i), at::full({100, i}, i));
  std::set<std::string> digests;
  for (const int threads : {1, 2, 5}) {
    const ThreadsGuard guard(threads);
    digests.insert(digest_tensors(tensors));
  }
  CHECK(digests.size() == 1);
}

}  // namespace
}  // namespace vlm

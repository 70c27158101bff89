// What epochs take of files with weights, and the seeded order without memory.
#include "train/batches/mixture.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "tests/support/catch.h"
#include "train/batches/data_plan.h"

namespace vlm::train {
namespace {

using Samples = std::vector<std::int64_t>;

TEST_CASE("a seeded order takes every number once, another one for another seed") {
  for (const std::int64_t size : {1, 2, 3, 5, 16, 17, 100, 1000}) {
    Samples order;
    for (std::int64_t i = 0; i < size; ++i) order.push_back(permuted(i, size, 3));
    Samples sorted = order;
    std::sort(sorted.begin(), sorted.end());
    Samples all(static_cast<std::size_t>(size));
    std::iota(all.begin(), all.end(), 0);
    CHECK(sorted == all);
    if (size < 16) continue;
    CHECK(order != all);
    Samples other;
    for (std::int64_t i = 0; i < size; ++i) other.push_back(permuted(i, size, 4));
    CHECK(order != other);
  }
}

TEST_CASE("an epoch takes weight times a file's samples, and goes on where the last one ended") {
  // Files of 10, 4 and 3 samples with weights 0.4, 2 and 1.
  const std::vector<MixPart> parts = {{10, 4}, {4, 8}, {3, 3}};
  CHECK(count_draws(parts) == 15);
  std::map<std::int64_t, int> taken;
  for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
    const Samples samples = epoch_samples(parts, epoch, true, 42);
    REQUIRE(samples.size() == 15);
    CHECK(samples == epoch_samples(parts, epoch, true, 42));
    CHECK(std::set<std::int64_t>(samples.begin(), samples.begin() + 4).size() >= 3);
    for (const std::int64_t sample : samples) ++taken[sample];
  }
  // 5 epochs go through the files 2, 10 and 5 times.
  for (const auto& [sample, count] : taken)
    CHECK(count == (sample < 10 ? 2 : sample < 14 ? 10 : 5));
  CHECK(taken.size() == 17);
  CHECK(epoch_samples(parts, 0, false, 42) ==
        Samples{0, 1, 2, 3, 10, 11, 12, 13, 10, 11, 12, 13, 14, 15, 16});
  CHECK(epoch_samples(parts, 2, false, 42) ==
        Samples{8, 9, 0, 1, 10, 11, 12, 13, 10, 11, 12, 13, 14, 15, 16});
}

TEST_CASE("steps over a mixture are a function of seed and step") {
  const StageSize stage{.samples = 15, .steps = 12, .mixture = {{10, 4}, {4, 8}, {3, 3}}};
  const DataPlan plan({stage}, 4, true, 9), again({stage}, 4, true, 9), other({stage}, 4, true, 8);
  Samples all, others;
  for (std::int64_t step = 11; step >= 0; --step) {
    const Samples samples = plan.at(step).samples;
    CHECK(samples.size() == (step % 4 == 3 ? 3U : 4U));
    CHECK(samples == again.at(step).samples);
    const Samples different = other.at(step).samples;
    all.insert(all.end(), samples.begin(), samples.end());
    others.insert(others.end(), different.begin(), different.end());
  }
  CHECK(all != others);
  std::sort(all.begin(), all.end());
  CHECK(std::count(all.begin(), all.end(), 16) == 3);
  CHECK(std::count_if(all.begin(), all.end(), [](std::int64_t s) { return s < 10; }) == 12);
  CHECK(std::count(all.begin(), all.end(), 12) == 6);
}

}  // namespace
}  // namespace vlm::train

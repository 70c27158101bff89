// An epoch over tables goes through a few blocks at a time.
#include <algorithm>
#include <numeric>
#include <set>

#include "tests/support/catch.h"
#include "train/batches/data_plan.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kBlocks = 40, kRows = 100;

// 40 blocks of 100 samples and 64 MB: four fit a window.
StageSize sized_stage(std::int64_t plain_samples) {
  StageSize stage{.samples = kBlocks * kRows + plain_samples, .steps = 10'000};
  for (int i = 0; i < kBlocks; ++i) stage.blocks.push_back({.rows = kRows, .bytes = 64LL << 20});
  if (plain_samples > 0) stage.blocks.push_back({.rows = plain_samples});
  return stage;
}

std::vector<std::int64_t> epoch_of(const DataPlan& plan, std::int64_t epoch, std::int64_t samples) {
  std::vector<std::int64_t> order;
  const std::int64_t steps = (samples + 7) / 8;
  for (std::int64_t step = epoch * steps; step < (epoch + 1) * steps; ++step) {
    const StepPlan taken = plan.at(step);
    order.insert(order.end(), taken.samples.begin(), taken.samples.end());
  }
  return order;
}

TEST_CASE("a shuffled epoch reads each block once, in windows that fit the memory") {
  const StageSize stage = sized_stage(0);
  const DataPlan plan({stage}, 8, /*shuffle=*/true, 7);
  const auto order = epoch_of(plan, 0, stage.samples);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int64_t> all(static_cast<std::size_t>(stage.samples));
  std::iota(all.begin(), all.end(), 0);
  CHECK(sorted == all);
  std::set<std::int64_t> done;
  for (std::size_t begin = 0; begin < order.size(); begin += 4 * kRows) {
    std::set<std::int64_t> open;
    for (std::size_t i = begin; i < begin + 4 * kRows; ++i) open.insert(order[i] / kRows);
    CHECK(open.size() == 4);
    for (const std::int64_t block : open) CHECK(done.insert(block).second);
  }
  // Within a window and between epochs the order is another one.
  CHECK_FALSE(std::is_sorted(order.begin(), order.begin() + 4 * kRows));
  std::set<std::int64_t> first;
  for (int i = 0; i < 50; ++i) first.insert(order[static_cast<std::size_t>(i)] / kRows);
  CHECK(first.size() > 1);
  CHECK(epoch_of(plan, 1, stage.samples) != order);
  CHECK(epoch_of(DataPlan({stage}, 8, true, 7), 0, stage.samples) == order);
}

TEST_CASE("samples of files without blocks are spread over all windows") {
  const StageSize stage = sized_stage(1000);
  const DataPlan plan({stage}, 8, /*shuffle=*/true, 3);
  const auto order = epoch_of(plan, 0, stage.samples);
  REQUIRE(order.size() == 5000);
  for (std::size_t begin = 0; begin < order.size(); begin += 1000) {
    const auto plain = std::count_if(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                     order.begin() + static_cast<std::ptrdiff_t>(begin + 1000),
                                     [](std::int64_t i) { return i >= kBlocks * kRows; });
    CHECK(plain > 100);
    CHECK(plain < 300);
  }
}

TEST_CASE("without shuffling the order is the files'") {
  const StageSize stage = sized_stage(0);
  const auto order = epoch_of(DataPlan({stage}, 8, /*shuffle=*/false, 1), 0, stage.samples);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

}  // namespace
}  // namespace vlm::train

#include "train/batches/data_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <utility>

namespace vlm::train {
namespace {

std::uint64_t splitmix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

using Order = std::vector<std::int64_t>;

// Groups in the order of their first samples, samples of a group one after the other.
Order keep_together(const Order& order, const std::vector<std::int64_t>& groups) {
  std::map<std::int64_t, Order> members;
  for (const std::int64_t i : order) members[groups[static_cast<std::size_t>(i)]].push_back(i);
  Order together;
  for (const std::int64_t i : order) {
    Order& group = members[groups[static_cast<std::size_t>(i)]];
    together.insert(together.end(), group.begin(), group.end());
    group.clear();
  }
  return together;
}

// Longest first within stretches of 50 batches; the longest of all goes to the very front, so that
// a run that doesn't fit the memory ends at once.
void sort_by_length(Order& order, const std::vector<std::int64_t>& lengths, std::int64_t batch) {
  const auto is_longer = [&](std::int64_t a, std::int64_t b) {
    return lengths[static_cast<std::size_t>(a)] > lengths[static_cast<std::size_t>(b)];
  };
  const std::ptrdiff_t stretch = 50 * batch;
  auto longest = order.begin();
  for (auto begin = order.begin(); begin != order.end();) {
    const auto end = begin + std::min<std::ptrdiff_t>(stretch, order.end() - begin);
    std::stable_sort(begin, end, is_longer);
    if (is_longer(*begin, *longest)) longest = begin;
    begin = end;
  }
  if (!order.empty()) std::iter_swap(order.begin(), longest);
}

// Fisher-Yates by hand: std::shuffle differs between standard libraries.
void shuffle_order(Order& order, std::mt19937_64& random) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

// The window that each block is taken in: blocks in a random order, as many as fit.
Order draw_windows(const std::vector<data::RowBlock>& blocks, std::mt19937_64& random) {
  Order taken(blocks.size());
  std::iota(taken.begin(), taken.end(), 0);
  shuffle_order(taken, random);
  Order windows(blocks.size());
  std::int64_t window = 0, bytes = 0;
  for (const std::int64_t block : taken) {
    const std::int64_t added = blocks[static_cast<std::size_t>(block)].bytes;
    if (bytes > 0 && bytes + added > kWindowBytes) {
      ++window;
      bytes = 0;
    }
    bytes += added;
    windows[static_cast<std::size_t>(block)] = window;
  }
  return windows;
}

// Brings samples of one window together, in the order that they have. Samples of files without
// blocks (bytes 0) go to any window.
Order keep_windows(const Order& order, const std::vector<data::RowBlock>& blocks,
                   std::mt19937_64& random) {
  const Order windows = draw_windows(blocks, random);
  const std::int64_t count = *std::max_element(windows.begin(), windows.end()) + 1;
  std::vector<std::int64_t> ends;
  for (const data::RowBlock& block : blocks) {
    ends.push_back((ends.empty() ? 0 : ends.back()) + block.rows);
  }
  std::vector<Order> members(static_cast<std::size_t>(count));
  for (const std::int64_t sample : order) {
    const auto block =
        static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), sample) - ends.begin());
    const std::int64_t window = blocks.at(block).bytes > 0
                                    ? windows[block]
                                    : static_cast<std::int64_t>(random() % std::uint64_t(count));
    members[static_cast<std::size_t>(window)].push_back(sample);
  }
  Order kept;
  kept.reserve(order.size());
  for (const Order& window : members) kept.insert(kept.end(), window.begin(), window.end());
  return kept;
}

}  // namespace

std::uint64_t mix_seed(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  return splitmix(splitmix(splitmix(a) ^ b) ^ c);
}

DataPlan::DataPlan(std::vector<StageSize> stages, std::int64_t samples_per_step, bool shuffle,
                   std::uint64_t seed)
    : stages_(std::move(stages)),
      samples_per_step_(samples_per_step),
      shuffle_(shuffle),
      seed_(seed) {}

std::int64_t DataPlan::total_steps() const {
  std::int64_t total = 0;
  for (const StageSize& stage : stages_) total += stage.steps;
  return total;
}

std::int64_t DataPlan::steps_per_epoch(std::int64_t stage) const {
  const std::int64_t samples = stages_[static_cast<std::size_t>(stage)].samples;
  return (samples + samples_per_step_ - 1) / samples_per_step_;
}

DataPlan::Place DataPlan::find(std::int64_t step) const {
  std::int64_t stage = 0;
  const auto last = static_cast<std::int64_t>(stages_.size()) - 1;
  while (stage < last && step >= stages_[static_cast<std::size_t>(stage)].steps) {
    step -= stages_[static_cast<std::size_t>(stage)].steps;
    ++stage;
  }
  return {stage, step / steps_per_epoch(stage), step % steps_per_epoch(stage)};
}

StepPlan DataPlan::at(std::int64_t step) const {
  const Place place = find(step);
  const auto order = order_of(place.stage, place.epoch);
  const auto begin = static_cast<std::size_t>(place.step_in_epoch * samples_per_step_);
  const std::size_t end =
      std::min(begin + static_cast<std::size_t>(samples_per_step_), order->size());
  return {.stage = place.stage,
          .epoch = place.epoch,
          .samples = {order->begin() + static_cast<std::ptrdiff_t>(begin),
                      order->begin() + static_cast<std::ptrdiff_t>(end)}};
}

double DataPlan::epoch_at(std::int64_t step) const {
  const Place place = find(step);
  return static_cast<double>(place.epoch) + static_cast<double>(place.step_in_epoch) /
                                                static_cast<double>(steps_per_epoch(place.stage));
}

double DataPlan::epoch_behind(std::int64_t steps) const {
  if (steps == 0) return 0;
  const Place last = find(steps - 1);
  return static_cast<double>(last.epoch) + static_cast<double>(last.step_in_epoch + 1) /
                                               static_cast<double>(steps_per_epoch(last.stage));
}

std::shared_ptr<const DataPlan::Order> DataPlan::order_of(std::int64_t stage,
                                                          std::int64_t epoch) const {
  {
    const std::lock_guard lock(mutex_);
    if (stage == last_stage_ && epoch == last_epoch_) return last_order_;
  }
  const auto order = std::make_shared<const Order>(make_order(stage, epoch));
  const std::lock_guard lock(mutex_);
  last_order_ = order;
  last_stage_ = stage;
  last_epoch_ = epoch;
  return order;
}

DataPlan::Order DataPlan::make_order(std::int64_t stage, std::int64_t epoch) const {
  const StageSize& size = stages_[static_cast<std::size_t>(stage)];
  Order order(static_cast<std::size_t>(size.samples));
  std::iota(order.begin(), order.end(), 0);
  if (!size.mixture.empty()) {
    order = epoch_samples(size.mixture, epoch, shuffle_,
                          mix_seed(seed_, static_cast<std::uint64_t>(stage)));
  }
  if (shuffle_) {
    std::mt19937_64 random(
        mix_seed(seed_, static_cast<std::uint64_t>(stage), static_cast<std::uint64_t>(epoch)));
    shuffle_order(order, random);
    if (!size.blocks.empty()) order = keep_windows(order, size.blocks, random);
  }
  if (!size.groups.empty()) order = keep_together(order, size.groups);
  if (!size.lengths.empty()) sort_by_length(order, size.lengths, samples_per_step_);
  return order;
}

}  // namespace vlm::train

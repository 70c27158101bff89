#include "train/plan/batch_sizes.h"

#include <algorithm>
#include <map>

namespace vlm::train {
namespace {

using Samples = std::vector<StepSample>;

void add(const data::SampleSize& sample, BatchSize& batch) {
  batch.tokens += sample.tokens;
  batch.labels += sample.labels;
  batch.tiles += sample.tiles;
}

std::vector<BatchSize> padded(const Samples& samples, std::int64_t rows) {
  std::vector<BatchSize> batches;
  const auto step = static_cast<std::size_t>(rows);
  for (std::size_t begin = 0; begin < samples.size(); begin += step) {
    const std::size_t end = std::min(begin + step, samples.size());
    BatchSize batch;
    std::int64_t longest = 0;
    for (std::size_t i = begin; i < end; ++i) {
      add(samples[i].size, batch);
      longest = std::max(longest, samples[i].size.tokens);
    }
    batch.slots = longest * static_cast<std::int64_t>(end - begin);
    batches.push_back(batch);
  }
  return batches;
}

// Samples behind one copy of their pictures, as far as a row holds them.
std::vector<BatchSize> join_groups(const Samples& samples, std::int64_t max_tokens) {
  std::vector<BatchSize> units;
  std::map<std::int64_t, std::size_t> open;
  for (const StepSample& sample : samples) {
    const std::int64_t shared = sample.size.picture_tokens;
    const bool may_share = sample.group >= 0 && shared > 0;
    const auto found = open.find(sample.group);
    if (may_share && found != open.end()) {
      BatchSize& unit = units[found->second];
      if (unit.tokens + sample.size.tokens - shared <= max_tokens) {
        unit.tokens += sample.size.tokens - shared;
        unit.labels += sample.size.labels;
        continue;
      }
    }
    if (may_share) open[sample.group] = units.size();
    BatchSize unit;
    add(sample.size, unit);
    units.push_back(unit);
  }
  return units;
}

std::vector<BatchSize> packed(std::vector<BatchSize> units, const TrainConfig& config) {
  std::stable_sort(units.begin(), units.end(),
                   [](const auto& a, const auto& b) { return a.tokens > b.tokens; });
  std::vector<BatchSize> rows;
  for (const BatchSize& unit : units) {
    const auto fits = [&](const BatchSize& row) {
      return row.tokens + unit.tokens <= config.max_tokens_per_batch &&
             (config.max_tiles_per_batch == 0 ||
              row.tiles + unit.tiles <= config.max_tiles_per_batch);
    };
    auto row = std::find_if(rows.begin(), rows.end(), fits);
    if (row == rows.end()) row = rows.insert(rows.end(), BatchSize{});
    row->tokens += unit.tokens;
    row->slots += unit.tokens;
    row->labels += unit.labels;
    row->tiles += unit.tiles;
  }
  return rows;
}

}  // namespace

std::vector<BatchSize> batch_sizes(const Samples& samples, const TrainConfig& config) {
  if (!config.packing) return padded(samples, config.per_device_train_batch_size);
  Samples separate = samples;
  if (!config.share_pictures) {
    for (StepSample& sample : separate) sample.group = -1;
  }
  return packed(join_groups(separate, config.max_tokens_per_batch), config);
}

}  // namespace vlm::train

// Compares two models on the same items: difference of the mean scores, with confidence interval.
//
// The interval is a paired percentile bootstrap (Efron 1979): items are drawn with replacement,
// each with both of its scores, many times; the interval spans the middle of the differences. The
// result depends on scores and seed alone and is the same on every machine.
#pragma once

#include <cstdint>
#include <vector>

namespace vlm::data {

struct PairedOptions {
  std::int64_t resamples = 10'000;
  double confidence = 0.95;
  std::uint64_t seed = 0;
  bool less_is_better = false;
  std::vector<double> weights;  // of the items in the means; empty: equal
};

struct PairedComparison {
  double before = 0, after = 0;  // weighted means
  double difference = 0;         // after − before
  double low = 0, high = 0;      // bounds of the interval
  std::int64_t items = 0;
  std::int64_t better = 0, worse = 0;  // items that became better or worse
};

// Both lists have one score for each item, in the same order.
PairedComparison compare_paired(const std::vector<double>& before, const std::vector<double>& after,
                                const PairedOptions& options = {});

}  // namespace vlm::data

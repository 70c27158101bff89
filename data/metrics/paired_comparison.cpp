#include "data/metrics/paired_comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Between the two nearest of sorted values.
double quantile(const std::vector<double>& sorted, double fraction) {
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
}

}  // namespace

PairedComparison compare_paired(const std::vector<double>& before, const std::vector<double>& after,
                                const PairedOptions& options) {
  if (before.size() != after.size()) {
    throw Error({.what = "the scores to compare are not of the same items",
                 .got = concat(after.size()),
                 .wanted = concat(before.size())});
  }
  PairedComparison result{.items = static_cast<std::int64_t>(before.size())};
  if (before.empty()) return result;
  std::vector<double> differences;
  for (std::size_t i = 0; i < before.size(); ++i) {
    differences.push_back(after[i] - before[i]);
    result.better += differences.back() > 0 ? 1 : 0;
    result.worse += differences.back() < 0 ? 1 : 0;
  }
  result.before = mean(before);
  result.after = mean(after);
  result.difference = mean(differences);
  std::mt19937_64 random(options.seed);
  std::vector<double> means;
  for (std::int64_t i = 0; i < options.resamples; ++i) {
    double sum = 0;
    // The remainder instead of a standard distribution, which differs between libraries.
    for (std::size_t j = 0; j < differences.size(); ++j) {
      sum += differences[random() % differences.size()];
    }
    means.push_back(sum / static_cast<double>(differences.size()));
  }
  std::sort(means.begin(), means.end());
  result.low = quantile(means, (1 - options.confidence) / 2);
  result.high = quantile(means, (1 + options.confidence) / 2);
  return result;
}

}  // namespace vlm::data

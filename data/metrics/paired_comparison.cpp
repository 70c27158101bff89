#include "data/metrics/paired_comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

double mean(const std::vector<double>& values, const std::vector<double>& weights) {
  return std::inner_product(values.begin(), values.end(), weights.begin(), 0.0) /
         std::accumulate(weights.begin(), weights.end(), 0.0);
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
    const double gain = options.less_is_better ? -differences.back() : differences.back();
    result.better += gain > 0 ? 1 : 0;
    result.worse += gain < 0 ? 1 : 0;
  }
  const std::vector<double> weights =
      options.weights.empty() ? std::vector<double>(before.size(), 1.0) : options.weights;
  result.before = mean(before, weights);
  result.after = mean(after, weights);
  result.difference = mean(differences, weights);
  std::mt19937_64 random(options.seed);
  std::vector<double> means;
  for (std::int64_t i = 0; i < options.resamples; ++i) {
    double sum = 0, weight = 0;
    // The remainder instead of a standard distribution, which differs between libraries.
    for (std::size_t j = 0; j < differences.size(); ++j) {
      const std::size_t drawn = random() % differences.size();
      sum += weights[drawn] * differences[drawn];
      weight += weights[drawn];
    }
    means.push_back(sum / weight);
  }
  std::sort(means.begin(), means.end());
  result.low = quantile(means, (1 - options.confidence) / 2);
  result.high = quantile(means, (1 + options.confidence) / 2);
  return result;
}

}  // namespace vlm::data

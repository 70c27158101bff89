#include "data/metrics/cider.h"

#include <array>
#include <cmath>
#include <map>
#include <set>

#include "data/metrics/caption_tokenizer.h"

namespace vlm::data {
namespace {

constexpr std::size_t kLongest = 4;
constexpr double kSigma = 6;

// n-grams by their words, joined with spaces (which no word holds), and how often they occur.
using Counts = std::array<std::map<std::string, double>, kLongest>;

Counts count_ngrams(const std::vector<std::string>& words) {
  Counts counts;
  for (std::size_t begin = 0; begin < words.size(); ++begin) {
    std::string ngram;
    for (std::size_t n = 0; n < kLongest && begin + n < words.size(); ++n) {
      ngram += (n > 0 ? " " : "") + words[begin + n];
      ++counts[n][ngram];
    }
  }
  return counts;
}

struct Caption {
  Counts weights;  // tf · idf
  std::array<double, kLongest> norm = {};
  double length = 0;  // in pairs of words, as the reference counts it
};

class Weights {
 public:
  explicit Weights(const std::vector<std::vector<Counts>>& references)
      : log_items_(std::log(static_cast<double>(references.size()))) {
    for (const auto& of_item : references) {
      std::set<std::string> seen;
      for (const Counts& counts : of_item) {
        for (const auto& of_length : counts) {
          for (const auto& [ngram, count] : of_length) seen.insert(ngram);
        }
      }
      for (const std::string& ngram : seen) ++items_with_[ngram];
    }
  }

  Caption weigh(const Counts& counts) const {
    Caption caption{.weights = counts};
    for (std::size_t n = 0; n < kLongest; ++n) {
      double squares = 0;
      for (auto& [ngram, weight] : caption.weights[n]) {
        if (n == 1) caption.length += weight;
        const auto found = items_with_.find(ngram);
        weight *= log_items_ - (found == items_with_.end() ? 0 : std::log(found->second));
        squares += weight * weight;
      }
      caption.norm[n] = std::sqrt(squares);
    }
    return caption;
  }

 private:
  double log_items_;
  std::map<std::string, double> items_with_;
};

// Mean over the n-gram lengths.
double similarity(const Caption& given, const Caption& wanted) {
  const double delta = given.length - wanted.length;
  double sum = 0;
  for (std::size_t n = 0; n < kLongest; ++n) {
    double dot = 0;
    for (const auto& [ngram, weight] : given.weights[n]) {
      const auto found = wanted.weights[n].find(ngram);
      if (found != wanted.weights[n].end()) dot += std::min(weight, found->second) * found->second;
    }
    if (given.norm[n] != 0 && wanted.norm[n] != 0) dot /= given.norm[n] * wanted.norm[n];
    sum += dot;
  }
  return sum / kLongest * std::exp(-delta * delta / (2 * kSigma * kSigma));
}

}  // namespace

std::vector<double> cider(const std::vector<AnswerPair>& pairs) {
  std::vector<std::vector<Counts>> references;
  for (const AnswerPair& pair : pairs) {
    references.emplace_back();
    for (const std::string& reference : pair.references) {
      references.back().push_back(count_ngrams(tokenize_caption(reference)));
    }
  }
  const Weights weights(references);
  std::vector<double> scores;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Caption given = weights.weigh(count_ngrams(tokenize_caption(pairs[i].answer)));
    double sum = 0;
    for (const Counts& reference : references[i]) {
      sum += similarity(given, weights.weigh(reference));
    }
    scores.push_back(sum / static_cast<double>(references[i].size()) * 10);
  }
  return scores;
}

}  // namespace vlm::data

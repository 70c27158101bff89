#include "data/metrics/metric.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "data/metrics/answer_match.h"
#include "data/metrics/cider.h"
#include "data/metrics/rouge.h"
#include "data/metrics/vqa_accuracy.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

using PairScore = std::function<double(const std::string& answer, const std::string& reference)>;

// The best over an item's references.
std::vector<double> score_each(const std::vector<AnswerPair>& pairs, const PairScore& score,
                               bool less_is_better = false) {
  std::vector<double> items;
  for (const AnswerPair& pair : pairs) {
    double best = score(pair.answer, pair.references.front());
    for (const std::string& reference : pair.references) {
      const double other = score(pair.answer, reference);
      best = less_is_better ? std::min(best, other) : std::max(best, other);
    }
    items.push_back(best);
  }
  return items;
}

std::vector<double> score_vqa(const std::vector<AnswerPair>& pairs) {
  std::vector<double> items;
  for (const AnswerPair& pair : pairs) {
    items.push_back(vqa_accuracy(pair.answer, pair.references));
  }
  return items;
}

std::vector<double> score_items(const std::string& name, const std::vector<AnswerPair>& pairs) {
  if (name == "vqa_accuracy") return score_vqa(pairs);
  if (name == "cider") return cider(pairs);
  if (name == "anls") return score_each(pairs, normalized_levenshtein_similarity);
  if (name == "cer") return score_each(pairs, character_error_rate, true);
  if (name == "rouge_l") return score_each(pairs, rouge_l);
  return score_each(pairs, name == "exact_match" ? is_same_answer : is_relaxed_match);
}

}  // namespace

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> names = {
      "exact_match", "vqa_accuracy", "anls", "relaxed_accuracy", "rouge_l", "cider", "cer"};
  return names;
}

bool is_less_better(const std::string& metric) {
  return metric == "cer";
}

void check_metric_name(const std::string& name, const std::string& where) {
  const auto& names = metric_names();
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  throw Error({.what = "unknown metric",
               .where = where,
               .got = concat("'", name, "'"),
               .wanted = join(names)});
}

MetricScore compute_metric(const std::string& name, const std::vector<AnswerPair>& pairs) {
  check_metric_name(name, "metric");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].references.empty()) {
      throw Error({.what = "nothing to compare the answer with", .where = concat("item ", i + 1)});
    }
  }
  MetricScore score{.items = score_items(name, pairs)};
  for (const AnswerPair& pair : pairs) {
    score.weights.push_back(
        name == "cer" ? static_cast<double>(reference_length(pair.references.front())) : 1.0);
  }
  if (score.items.empty()) return score;
  score.value =
      std::inner_product(score.items.begin(), score.items.end(), score.weights.begin(), 0.0) /
      std::accumulate(score.weights.begin(), score.weights.end(), 0.0);
  return score;
}

}  // namespace vlm::data

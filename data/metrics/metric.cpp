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
std::vector<double> score_each(const std::vector<AnswerPair>& pairs, const PairScore& score) {
  std::vector<double> items;
  for (const AnswerPair& pair : pairs) {
    double best = 0;
    for (const std::string& reference : pair.references) {
      best = std::max(best, score(pair.answer, reference));
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
  if (name == "rouge_l") return score_each(pairs, rouge_l);
  return score_each(pairs, name == "exact_match" ? is_same_answer : is_relaxed_match);
}

}  // namespace

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> names = {"exact_match",      "vqa_accuracy", "anls",
                                                 "relaxed_accuracy", "rouge_l",      "cider"};
  return names;
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
  if (score.items.empty()) return score;
  score.value = std::accumulate(score.items.begin(), score.items.end(), 0.0) /
                static_cast<double>(score.items.size());
  return score;
}

}  // namespace vlm::data

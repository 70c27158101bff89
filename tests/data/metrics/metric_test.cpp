// Scores against what the reference kits say (scripts/make_metric_fixtures.py).
#include "data/metrics/metric.h"

#include <nlohmann/json.hpp>

#include "data/metrics/caption_tokenizer.h"
#include "data/metrics/paired_comparison.h"
#include "data/metrics/vqa_accuracy.h"
#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::data {
namespace {

AnswerPair to_pair(const Json& item) {
  return {.answer = item["answer"], .references = item["references"]};
}

TEST_CASE("captions split into the reference's tokens") {
  const Json golden = load_json(fixture("metrics.json"));
  REQUIRE_FALSE(golden["captions"].empty());
  for (const Json& item : golden["captions"]) {
    CHECK(tokenize_caption(item["text"]) == item["tokens"].get<std::vector<std::string>>());
  }
}

TEST_CASE("metrics of answers equal the reference kits'") {
  const Json golden = load_json(fixture("metrics.json"));
  std::vector<AnswerPair> pairs;
  for (const Json& item : golden["answers"]) pairs.push_back(to_pair(item));
  for (const std::string name : {"vqa_accuracy", "anls", "relaxed_accuracy", "rouge_l"}) {
    const MetricScore score = compute_metric(name, pairs);
    double sum = 0;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      INFO(name << " of '" << pairs[i].answer << "'");
      CHECK(score.items[i] == Approx(golden["answers"][i][name].get<double>()).margin(1e-12));
      sum += score.items[i];
    }
    CHECK(score.value == Approx(sum / static_cast<double>(pairs.size())));
  }
  for (const Json& item : golden["answers"]) {
    CHECK(normalize_vqa_answer(item["answer"]) == item["vqa_normal"].get<std::string>());
  }
}

TEST_CASE("CIDEr equals the reference's, with idf over the items given") {
  const Json golden = load_json(fixture("metrics.json"))["cider"];
  std::vector<AnswerPair> pairs;
  for (const Json& item : golden) pairs.push_back(to_pair(item));
  const MetricScore score = compute_metric("cider", pairs);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    INFO(pairs[i].answer);
    CHECK(score.items[i] == Approx(golden[i]["cider"].get<double>()).margin(1e-9));
  }
  // Alone, everything said is said everywhere.
  CHECK(compute_metric("cider", {pairs[0]}).value == 0);
}

TEST_CASE("the character error rate equals jiwer's, of an item and of all together") {
  const Json golden = load_json(fixture("metrics.json"))["labels"];
  std::vector<AnswerPair> pairs;
  for (const Json& item : golden["items"]) pairs.push_back(to_pair(item));
  const MetricScore score = compute_metric("cer", pairs);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    INFO(pairs[i].answer);
    CHECK(score.items[i] == Approx(golden["items"][i]["cer"].get<double>()).margin(1e-12));
  }
  CHECK(score.value == Approx(golden["all"].get<double>()));
  // Of several references the one that is nearest counts.
  CHECK(compute_metric("cer", {{"EXP 05", {"SN 7", "EXP 06"}}}).value == Approx(1.0 / 6));
  // Long items weigh more before and after, and fewer errors are better.
  const PairedComparison change =
      compare_paired({1, 0.5}, {0, 1}, {.less_is_better = true, .weights = {9, 1}});
  CHECK(change.before == Approx(0.95));
  CHECK(change.after == Approx(0.1));
  CHECK(change.better == 1);
  CHECK(change.worse == 1);
}

TEST_CASE("an exact match allows another case and surrounding space, nothing else") {
  const MetricScore score = compute_metric("exact_match", {{" Two Dogs\n", {"a cat", "two dogs"}},
                                                           {"two  dogs", {"two dogs"}},
                                                           {"Two dogs.", {"two dogs"}}});
  CHECK(score.items == std::vector<double>{1, 0, 0});
  CHECK(score.value == Approx(1.0 / 3));
  CHECK(compute_metric("anls", {}).value == 0);
}

TEST_CASE("an unknown metric and an item without reference are errors") {
  CHECK_THROWS_WITH(compute_metric("bleu", {}),
                    "metric: unknown metric: got 'bleu', wanted exact_match, vqa_accuracy, anls, "
                    "relaxed_accuracy, rouge_l, cider, cer");
  CHECK_THROWS_WITH(compute_metric("anls", {{"a", {"a"}}, {"b", {}}}),
                    "item 2: nothing to compare the answer with");
}

TEST_CASE("a paired comparison holds the pairs together and is repeatable") {
  // Every item gains the same: no uncertainty, however different the items are.
  const PairedComparison sure = compare_paired({0, 0.5, 0.9, 0.2}, {0.1, 0.6, 1.0, 0.3});
  CHECK(sure.difference == Approx(0.1));
  CHECK(sure.low == Approx(0.1));
  CHECK(sure.high == Approx(0.1));
  CHECK(sure.better == 4);

  std::vector<double> before(200, 0), after(200, 0);
  for (std::size_t i = 0; i < 60; ++i) after[i] = 1;
  for (std::size_t i = 60; i < 80; ++i) before[i] = 1;
  const PairedComparison mixed = compare_paired(before, after, {.seed = 7});
  CHECK(mixed.before == Approx(0.1));
  CHECK(mixed.after == Approx(0.3));
  CHECK(mixed.difference == Approx(0.2));
  CHECK(mixed.better == 60);
  CHECK(mixed.worse == 20);
  CHECK(mixed.items == 200);
  // The normal interval: 0.2 ± 1.96 · sqrt(0.36 / 200).
  CHECK(mixed.low == Approx(0.2 - 0.083).margin(0.01));
  CHECK(mixed.high == Approx(0.2 + 0.083).margin(0.01));
  const PairedComparison again = compare_paired(before, after, {.seed = 7});
  CHECK(again.low == mixed.low);
  CHECK(again.high == mixed.high);

  CHECK_THROWS_WITH(compare_paired({1}, {1, 0}),
                    "the scores to compare are not of the same items: got 2, wanted 1");
  CHECK(compare_paired({}, {}).items == 0);
}

}  // namespace
}  // namespace vlm::data

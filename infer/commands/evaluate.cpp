#include "infer/commands/evaluate.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/metrics/answer_match.h"
#include "data/metrics/metric.h"
#include "infer/items/digest.h"
#include "infer/items/item_failure.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::string text_of(const Message& message) {
  std::string text;
  for (const ContentPart& part : message.content) text += part.text;
  return text;
}

// A row's answer: a text, or all that are right. A sample that couldn't be read has none.
std::vector<std::string> references_of(const Json& row) {
  if (!row.contains("answer")) return {""};
  const Json& answer = row["answer"];
  if (answer.is_string()) return {answer.get<std::string>()};
  return answer.get<std::vector<std::string>>();
}

// Samples of a data set.
class EvaluationEntries : public EntrySource {
 public:
  EvaluationEntries(std::unique_ptr<data::Dataset> dataset, std::vector<std::string> files)
      : dataset_(std::move(dataset)), files_(std::move(files)) {
    for (std::int64_t i = 0; i < dataset_->size(); ++i) {
      try {
        add(read(i));
      } catch (const std::exception& error) {
        shares_.push_back(false);
        digest_.add(error.what());
      }
    }
  }

  std::int64_t size() const override { return dataset_->size(); }

  Entry at(std::int64_t index) const override {
    Entry entry{.id = concat(index)};
    try {
      data::Sample sample = read(index);
      entry.columns["answer"] = text_of(sample.messages.back());
      if (sample.references.size() > 1) entry.columns["answer"] = sample.references;
      sample.messages.pop_back();
      entry.messages = std::move(sample.messages);
      if (!sample.media.empty()) entry.path = sample.media[0].name;
      entry.media = std::move(sample.media);
    } catch (const std::exception& error) {
      entry.error = failure_text(error);
    }
    return entry;
  }

  bool shares_media(std::int64_t index) const override {
    return shares_.at(static_cast<std::size_t>(index));
  }
  std::vector<std::string> columns() const override { return {"answer"}; }
  bool asks() const override { return true; }
  bool shows_videos() const override { return shows_videos_; }
  std::vector<std::string> files() const override { return files_; }
  void add_to(ListDigest& digest) const override { digest.add(digest_.hex()); }

 private:
  data::Sample read(std::int64_t index) const {
    data::Sample sample = dataset_->at(index);
    if (sample.messages.size() < 2 || sample.messages.back().role != "assistant") {
      throw Error({.what = "sample doesn't end with an assistant turn", .where = sample.where});
    }
    return sample;
  }

  void add(const data::Sample& sample) {
    shares_.push_back(!shares_.empty() && sample.media == before_);
    before_ = sample.media;
    for (const Message& message : sample.messages) digest_.add(message.role + text_of(message));
    for (const MediaRef& medium : sample.media) {
      shows_videos_ = shows_videos_ || medium.kind == MediaKind::kVideo;
      digest_.add(medium.name);
      if (medium.bytes) digest_.add(*medium.bytes);
      if (medium.is_whole) digest_.add("whole");
    }
  }

  std::unique_ptr<data::Dataset> dataset_;
  std::vector<std::string> files_;
  bool shows_videos_ = false;
  std::vector<bool> shares_;
  std::vector<MediaRef> before_;
  ListDigest digest_;
};

}  // namespace

std::unique_ptr<EntrySource> make_evaluation_entries(std::unique_ptr<data::Dataset> dataset,
                                                     std::vector<std::string> files) {
  return std::make_unique<EvaluationEntries>(std::move(dataset), std::move(files));
}

OrderedJson score_rows(const std::filesystem::path& rows, const std::vector<std::string>& metrics) {
  std::ifstream in(rows);
  std::vector<data::AnswerPair> pairs;
  std::vector<bool> has_error;
  std::int64_t total = 0, correct = 0, errors = 0;
  for (std::string line; std::getline(in, line); ++total) {
    const Json row = parse_json(line, concat(rows.string(), ":", total + 1));
    has_error.push_back(row.contains("error"));
    const bool has_text = !has_error.back() && row.at("text").is_string();  // null: withheld
    pairs.push_back({.answer = has_text ? data::strip_space(row.at("text")) : "",
                     .references = references_of(row)});
    errors += has_error.back() ? 1 : 0;
    const data::AnswerPair& pair = pairs.back();
    const bool is_correct = std::any_of(
        pair.references.begin(), pair.references.end(),
        [&](const std::string& wanted) { return data::is_same_answer(pair.answer, wanted); });
    correct += has_text && is_correct ? 1 : 0;
  }
  const double accuracy = total > 0 ? static_cast<double>(correct) / static_cast<double>(total) : 0;
  OrderedJson scores = {
      {"accuracy", accuracy}, {"correct", correct}, {"total", total}, {"errors", errors}};
  for (const std::string& metric : metrics) {
    const data::MetricScore score = data::compute_metric(metric, pairs);
    double sum = 0;
    for (std::size_t i = 0; i < pairs.size(); ++i) sum += has_error[i] ? 0 : score.items[i];
    scores[metric] = total > 0 ? sum / static_cast<double>(total) : 0;
  }
  return scores;
}

}  // namespace vlm::infer

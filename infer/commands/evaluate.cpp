#include "infer/commands/evaluate.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/conversations/row_format.h"
#include "data/metrics/answer_match.h"
#include "data/metrics/metric.h"
#include "infer/items/item_failure.h"
#include "infer/items/row_entry.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

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

// The rows of data files as samples.
class EvaluationEntries : public EntrySource {
 public:
  explicit EvaluationEntries(const std::vector<data::DataFile>& files) {
    for (const data::DataFile& file : files) {
      begins_.push_back(size_);
      files_.push_back({data::open_samples(file.path), file});
      size_ += files_.back().rows->size();
      files_.back().is_table() ? add_table(files_.back()) : add_samples(files_.back());
    }
  }

  std::int64_t size() const override { return size_; }

  Entry at(std::int64_t index) const override {
    Entry entry{.id = concat(index)};
    const auto [file, inside] = find(index);
    try {
      data::Sample sample = read(*file, inside);
      entry.columns["answer"] = text_of(sample.messages.back());
      if (sample.references.size() > 1) entry.columns["answer"] = sample.references;
      data::drop_last_turn(sample);
      entry.messages = std::move(sample.messages);
      if (!sample.media.empty() && !sample.media[0].bytes) entry.path = sample.media[0].name;
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
  std::vector<std::string> files() const override {
    std::vector<std::string> paths;
    for (const File& file : files_) paths.push_back(file.source.path);
    return paths;
  }
  void add_to(ListDigest& digest) const override { digest.add(digest_.hex()); }

 private:
  struct File {
    std::unique_ptr<data::RowSource> rows;
    data::DataFile source;

    bool is_table() const { return !rows->blocks().empty(); }
  };

  std::pair<const File*, std::int64_t> find(std::int64_t index) const {
    const auto after = std::upper_bound(begins_.begin(), begins_.end(), index);
    const auto file = static_cast<std::size_t>(after - begins_.begin()) - 1;
    return {&files_[file], index - begins_[file]};
  }

  static data::Sample read(const File& file, std::int64_t index) {
    data::Sample sample = data::read_sample(*file.rows, index, file.source.options);
    if (sample.messages.size() < 2 || sample.messages.back().role != "assistant") {
      throw Error({.what = "sample doesn't end with an assistant turn", .where = sample.where});
    }
    return sample;
  }

  void add_samples(const File& file) {
    for (std::int64_t i = 0; i < file.rows->size(); ++i) {
      try {
        add(read(file, i));
      } catch (const std::exception& error) {
        shares_.push_back(false);
        digest_.add(error.what());
      }
    }
  }

  // Of a table nobody reads the pictures before they are shown.
  void add_table(const File& file) {
    const RowOptions options{.data = file.source.options};
    file.rows->add_to(digest_);
    digest_.add(dump_text(options.describe()));
    digest_.add(file.source.options.text_column);
    digest_.add(file.source.options.prompt);
    for (std::int64_t i = 0; i < file.rows->size(); ++i) {
      shares_.push_back(i % kComparedRows > 0);
      shows_videos_ = shows_videos_ || mentions_video(file, i);
    }
  }

  static bool mentions_video(const File& file, std::int64_t index) {
    try {
      return mention_of(outline_row(*file.rows, index), {.data = file.source.options}).has_video;
    } catch (const Error&) {  // told when the row is asked
      return false;
    }
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

  std::vector<File> files_;
  std::vector<std::int64_t> begins_;  // first row of each file
  std::int64_t size_ = 0;
  bool shows_videos_ = false;
  std::vector<bool> shares_;
  std::vector<MediaRef> before_;
  ListDigest digest_;
};

}  // namespace

std::unique_ptr<EntrySource> open_evaluation_entries(const std::vector<data::DataFile>& files) {
  return std::make_unique<EvaluationEntries>(files);
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
    // An item that failed is the worst: no answer has a rate of 1 by itself.
    double sum = 0, weight = 0;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const bool counts = !has_error[i] || data::is_less_better(metric);
      sum += counts ? score.weights[i] * score.items[i] : 0;
      weight += score.weights[i];
    }
    scores[metric] = weight > 0 ? sum / weight : 0;
  }
  return scores;
}

}  // namespace vlm::infer

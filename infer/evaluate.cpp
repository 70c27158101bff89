#include "infer/evaluate.h"

#include <cctype>
#include <fstream>
#include <nlohmann/json.hpp>

#include "infer/items/digest.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::string text_of(const Message& message) {
  std::string text;
  for (const ContentPart& part : message.content) text += part.text;
  return text;
}

std::string normalized(const std::string& text) {
  std::string lower;
  for (const char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto begin = lower.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return lower.substr(begin, lower.find_last_not_of(" \t\r\n") - begin + 1);
}

// The files of the image and video parts, in their order.
std::vector<MediaRef> media_of(const std::vector<Message>& messages,
                               const std::vector<std::filesystem::path>& files) {
  std::vector<MediaRef> media;
  for (const Message& message : messages) {
    for (const ContentPart& part : message.content) {
      if (part.type == "text") continue;
      const MediaKind kind = part.type == "video" ? MediaKind::kVideo : MediaKind::kPicture;
      media.push_back({.kind = kind, .name = files.at(media.size()).string()});
    }
  }
  return media;
}

// Samples of a data set. Their media are files.
class EvaluationEntries : public EntrySource {
 public:
  explicit EvaluationEntries(std::unique_ptr<data::Dataset> dataset)
      : dataset_(std::move(dataset)) {
    for (std::int64_t i = 0; i < dataset_->size(); ++i) {
      const data::Sample sample = dataset_->at(i);
      if (sample.messages.size() < 2 || sample.messages.back().role != "assistant") {
        throw Error({.what = "sample doesn't end with an assistant turn", .where = sample.where});
      }
      shares_.push_back(i > 0 && sample.images == before_);
      before_ = sample.images;
      for (const Message& message : sample.messages) {
        digest_.add(message.role + text_of(message));
        for (const ContentPart& part : message.content) {
          shows_videos_ = shows_videos_ || part.type == "video";
        }
      }
      for (const auto& image : sample.images) digest_.add(image.string());
    }
  }

  std::int64_t size() const override { return dataset_->size(); }

  Entry at(std::int64_t index) const override {
    data::Sample sample = dataset_->at(index);
    Entry entry{.id = concat(index)};
    entry.columns["answer"] = text_of(sample.messages.back());
    sample.messages.pop_back();
    entry.messages = std::move(sample.messages);
    entry.media = media_of(entry.messages, sample.images);
    if (!sample.images.empty()) entry.path = sample.images[0].string();
    return entry;
  }

  bool shares_media(std::int64_t index) const override {
    return shares_.at(static_cast<std::size_t>(index));
  }
  std::vector<std::string> columns() const override { return {"answer"}; }
  bool asks() const override { return true; }
  bool shows_videos() const override { return shows_videos_; }
  void add_to(Digest& digest) const override { digest.add(digest_.value()); }

 private:
  std::unique_ptr<data::Dataset> dataset_;
  bool shows_videos_ = false;
  std::vector<bool> shares_;
  std::vector<std::filesystem::path> before_;
  Digest digest_;
};

}  // namespace

std::unique_ptr<EntrySource> make_evaluation_entries(std::unique_ptr<data::Dataset> dataset) {
  return std::make_unique<EvaluationEntries>(std::move(dataset));
}

OrderedJson score_rows(const std::filesystem::path& rows) {
  std::ifstream in(rows);
  std::int64_t total = 0, correct = 0, errors = 0;
  for (std::string line; std::getline(in, line); ++total) {
    const Json row = parse_json(line, concat(rows.string(), ":", total + 1));
    if (row.contains("error")) {
      ++errors;
    } else {
      correct += is_same_answer(row.at("text"), row.at("answer")) ? 1 : 0;
    }
  }
  const double accuracy = total > 0 ? static_cast<double>(correct) / static_cast<double>(total) : 0;
  return {{"accuracy", accuracy}, {"correct", correct}, {"total", total}, {"errors", errors}};
}

bool is_same_answer(const std::string& given, const std::string& wanted) {
  return normalized(given) == normalized(wanted);
}

}  // namespace vlm::infer

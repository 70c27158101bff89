#include "infer/evaluate.h"

#include <cctype>
#include <fstream>
#include <nlohmann/json.hpp>

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

}  // namespace

std::vector<BatchItem> make_evaluation_items(const data::Dataset& dataset) {
  std::vector<BatchItem> items;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    data::Sample sample = dataset.at(i);
    if (sample.messages.size() < 2 || sample.messages.back().role != "assistant") {
      throw Error({.what = "sample doesn't end with an assistant turn", .where = sample.where});
    }
    const std::string answer = text_of(sample.messages.back());
    sample.messages.pop_back();
    BatchItem item{.id = concat(i), .images = sample.images};
    if (!sample.images.empty()) item.columns.emplace_back("path", sample.images[0].string());
    item.columns.emplace_back("question", text_of(sample.messages.back()));
    item.columns.emplace_back("answer", answer);
    item.messages = std::move(sample.messages);
    items.push_back(std::move(item));
  }
  return items;
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
